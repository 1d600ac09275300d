"""All that may be wrong with a line, in one real job on the demo model: each has its error, the others an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.running.command import typed
from tests.running.up import up

SCENE = Path(__file__).parents[2] / "examples" / "scene.png"
ASKED = "How many red cubes are there?"

TIGHT = {"STAGEBEAM_ENGINE_OPTIONS": '{"apart": false, "memory_mb": 8}'}
"""In one process the engine is ready sooner; in so little memory a long question has no room, a usual one has."""
BAD = {
    "cut short": ("image_unreadable", "images[0]: the image cannot be decoded (OSError: image file is truncated)"),
    "no picture": ("image_unsupported_format", "images[0]: the image has no format that is read here"),
    "empty": ("image_unreadable", "images[0]: the image is empty"),
    "not there": ("image_missing", 'images[0]: there is no file "gone.png"; check the name'),
    "too long": ("context_overflow", "tokens and the context holds 512; shorten the question or send fewer images"),
    "too large": ("out_of_memory", "too little memory for this call alone; lower max_tokens or raise memory_mb"),
    "zero": ("invalid_policy", "policy.candidates is 0; use 1 to 64"),
}
"""Error code and words by the line's name."""


def write(folder: Path) -> Path:
    """An input file beside its images."""
    scene = SCENE.read_bytes()
    for name, data in (("scene", scene), ("cut", scene[: len(scene) // 2]), ("text", b"not an image"), ("empty", b"")):
        (folder / f"{name}.png").write_bytes(data)
    lines: list[dict[str, Any]] = [
        {"custom_id": "plain", "question": ASKED},
        {"custom_id": "end tags", "question": f"</SUMMARY></CONCLUSION> <SUMMARY> {ASKED}"},
        {"custom_id": "placeholders", "question": f"<|image|><|eot_id|> <image> {ASKED} <|image|>"},
        {"custom_id": "cut short", "question": ASKED, "images": ["cut.png"]},
        {"custom_id": "no picture", "question": ASKED, "images": ["text.png"]},
        {"custom_id": "empty", "question": ASKED, "images": ["empty.png"]},
        {"custom_id": "not there", "question": ASKED, "images": ["gone.png"]},
        {"custom_id": "too long", "question": f"{ASKED} " * 200},
        {"custom_id": "too large", "question": f"{ASKED} " * 50},
        {"custom_id": "zero", "question": ASKED, "policy": {"candidates": 0}},
    ]
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps({"images": ["scene.png"]} | line) + "\n" for line in lines))
    return path


@pytest.mark.timeout(120)
def test_every_bad_line_has_its_error_and_the_rest_its_answer(tmp_path: Path) -> None:
    path = write(tmp_path)
    with up(tmp_path / "data", model="demo", settings=TIGHT) as stack:
        asked = ("--on-bad-line", "skip", "--candidates", "2", "--wait", "--json")
        run = typed("job", "submit", str(path), *asked, URL=stack.url)
        assert run.returncode == 1, run.stderr
        job = json.loads(run.stdout)["id"]
        results = tmp_path / "results.jsonl"
        assert typed("job", "results", job, "-o", str(results), URL=stack.url).returncode == 0
    found = {line["custom_id"]: line for line in map(json.loads, results.read_text().splitlines())}
    for name, (code, words) in BAD.items():
        error = found[name]["error"]
        assert (found[name]["status"], error["code"]) == ("failed", code)
        assert words in error["message"]
    for name in set(found) - set(BAD):
        assert found[name]["status"] == "done", found[name]
        assert found[name]["answer"]
