"""Every format that people have, read into the lines that validation takes."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import sys
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from orchestrator.datasets.columns import find_columns, to_lines
from orchestrator.datasets.packing import jsonl
from orchestrator.datasets.source import detect, open_source
from orchestrator.datasets.spec import OpenFile, SourceSpec
from orchestrator.intake.pictures import digest
from orchestrator.intake.records import AcceptedLine
from orchestrator.intake.seen import SeenIds
from orchestrator.intake.validate import LineRules, validate
from reasoning.errors import BadInput


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (9, 9), (shade, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def b64(shade: int) -> str:
    return base64.b64encode(png(shade)).decode()


def read(location: Path | OpenFile, **given: Any) -> list[dict[str, Any]]:
    return list(open_source(SourceSpec(location=location, **given)).lines)


def accepted(lines: list[dict[str, Any]]) -> list[AcceptedLine]:
    """The lines as the server sees them; fails when it would refuse one."""
    text = b"".join(jsonl(lines, lambda hashes: hashes, lambda *_: None))
    with SeenIds() as seen:
        found = [line for _, line in validate([text], LineRules(), seen.first_use)]
    refused = [line for line in found if not isinstance(line, AcceptedLine)]
    assert not refused
    return [line for line in found if isinstance(line, AcceptedLine)]


def write_table(path: Path, rows: list[dict[str, Any]], delimiter: str) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


ROWS = [
    {"id": "a", "image": "pics/1.png", "prompt": 'What, "then"?', "label": "cat", "options": "['cat', 'dog']",
     "src": "x"},
    {"id": "b", "image": "pics/2.png", "prompt": "two\nlines", "label": "dog", "options": '["cat", "dog"]', "src": "y"},
]  # fmt: skip


@pytest.mark.parametrize(("name", "delimiter"), [("t.csv", ","), ("t.tsv", "\t")])
def test_tables_with_guessed_columns(tmp_path: Path, name: str, delimiter: str):
    source = open_source(SourceSpec(location=write_table(tmp_path / name, ROWS, delimiter)))
    assert source.mapping == {
        "custom_id": "id", "question": "prompt", "answer": "label", "images": ["image"], "choices": ["options"],
    }  # fmt: skip
    lines = list(source.lines)
    assert lines[0] == {
        "custom_id": "a",
        "question": 'What, "then"?',
        "images": ["pics/1.png"],
        "choices": ["cat", "dog"],
        "answer": "cat",
        "metadata": {"src": "x"},
    }
    assert accepted(lines)[1].question == "two\nlines"


def test_columns_may_be_named_left_out_and_written_into_one_question(tmp_path: Path):
    path = write_table(tmp_path / "t.csv", ROWS, ",")
    lines = read(path, columns={"answer": "", "custom_id": "src"}, question="Is it {label}? {else}")
    asked = [(line["custom_id"], line["question"]) for line in lines]
    assert asked == [("x", "Is it cat? {else}"), ("y", "Is it dog? {else}")]
    assert "answer" not in lines[0]
    with pytest.raises(BadInput, match='Did you mean "prompt"'):
        read(path, columns={"question": "promt"})
    with pytest.raises(BadInput, match='Did you mean "question"'):
        read(path, columns={"questions": "prompt"})


def test_a_table_without_a_question_says_what_to_do(tmp_path: Path):
    path = write_table(tmp_path / "t.csv", [{"image": "1.png", "x": "1"}], ",")
    with pytest.raises(BadInput, match="--question"):
        read(path)
    assert read(path, question="What?")[0]["custom_id"] == "row-1"


def test_vlmevalkit_tables_share_images_by_index(tmp_path: Path):
    rows = [
        {"index": 0, "image": "2", "question": "q0", "hint": "look", "A": "x", "B": "y", "C": "", "answer": "A"},
        {"index": 1, "image": b64(1), "question": "q1", "hint": "", "A": "x", "B": "y", "C": "z", "answer": "C"},
        {"index": 2, "image": b64(2), "question": "q2", "hint": "", "A": "x", "B": "y", "C": "z", "answer": "B"},
        {"index": 3, "image": "9", "question": "q3", "hint": "", "A": "x", "B": "y", "C": "z", "answer": "B"},
    ]
    path = write_table(tmp_path / "MMBench.tsv", rows, "\t")
    assert detect(SourceSpec(location=path)) == "vlmevalkit"
    lines = read(path)
    assert lines[0]["images"] == lines[2]["images"]
    assert lines[0]["question"] == "look\nq0"
    assert lines[0]["choices"] == ["x", "y"]
    assert lines[1]["images"][0].startswith(b"\x89PNG")
    assert lines[3]["images"][0]["error"]["code"] == "image_missing"


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress, zstandard.compress])
def test_jsonl_plain_gzip_and_zstd(tmp_path: Path, pack: Any):
    native = {"custom_id": "1", "question": "?", "images": ["a.png"]}
    other = {"id": 7, "image": "a.png", "query": "?", "extra": [1, 2]}
    for record, expected in ((native, native), (other, {**native, "custom_id": "7", "metadata": {"extra": [1, 2]}})):
        path = tmp_path / "x.jsonl.gz"
        path.write_bytes(pack(orjson.dumps(record) + b"\n"))
        assert read(path) == [expected]


def feature_table(count: int) -> pa.Table:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": png(n % 3), "path": None} for n in range(count)], kind)
    return pa.table({
        "image_1": images,
        "image_2": pa.array([None] * count, kind),
        "question": [f"q{n}" for n in range(count)],
        "answer": [float(n) for n in range(count)],
        "options": [["x", "y"]] * count,
    })  # fmt: skip


@pytest.mark.parametrize(
    "first", [b'{"custom_id": "a", "question": "caf\xe9"}', b'{"custom_id": "a", "question": "x", "imags": []}']
)
def test_a_first_line_that_is_wrong_leaves_the_lines_native(tmp_path: Path, first: bytes):
    path = tmp_path / "lines.jsonl"
    path.write_bytes(first + b'\n{"custom_id": "b", "question": "x", "images": ["i.png"]}\n')
    source = open_source(SourceSpec(location=path))
    assert (source.format, source.mapping) == ("jsonl", {})
    assert len(list(source.lines)) == 2


def test_parquet_with_image_features(tmp_path: Path):
    path = tmp_path / "x.parquet"
    pq.write_table(feature_table(40), path, row_group_size=7)
    lines = read(path)
    assert len(lines) == 40
    assert lines[5]["images"] == [png(2)]
    assert (lines[5]["answer"], lines[5]["choices"], lines[5]["custom_id"]) == (5, ["x", "y"], "row-6")
    with path.open("rb") as stream:
        assert read(OpenFile("x", stream), limit=3) == lines[:3]
    path.write_bytes(b"PAR1 but nothing else")
    with pytest.raises(BadInput, match="parquet"):
        read(path)


def test_folders_that_the_datasets_library_wrote(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    rows = {"image": [{"bytes": png(n), "path": None} for n in range(5)], "question": [f"q{n}" for n in range(5)]}
    features = datasets.Features({"image": datasets.Image(), "question": datasets.Value("string")})
    one = datasets.Dataset.from_dict(rows, features=features)
    one.save_to_disk(tmp_path / "one", num_shards=2)
    datasets.DatasetDict({"train": one, "test": one.select([3])}).save_to_disk(tmp_path / "two")
    assert [line["images"] for line in read(tmp_path / "one")] == [[png(n)] for n in range(5)]
    assert [line["question"] for line in read(tmp_path / "two")] == ["q3"]
    assert len(read(tmp_path / "two", split="train")) == 5
    with pytest.raises(BadInput, match='Did you mean "train"'):
        read(tmp_path / "two", split="tran")


def test_folders_of_parquet_as_the_hub_lays_them_out(tmp_path: Path):
    (tmp_path / "data").mkdir()
    for part in range(2):
        pq.write_table(feature_table(3), tmp_path / "data" / f"train-0000{part}-of-00002.parquet")
    source = open_source(SourceSpec(location=tmp_path))
    assert source.notes == ("split train",)
    assert len(list(source.lines)) == 6


def test_a_folder_of_images_with_one_question(tmp_path: Path):
    (tmp_path / "b").mkdir()
    for name in ("b/2.png", "1.JPG", "notes.txt"):
        (tmp_path / name).write_bytes(png(1))
    assert read(tmp_path, question="What is {name}?") == [
        {"custom_id": "1.JPG", "question": "What is 1?", "images": ["1.JPG"]},
        {"custom_id": "b/2.png", "question": "What is 2?", "images": ["b/2.png"]},
    ]
    with pytest.raises(BadInput, match="--question"):
        read(tmp_path)


def test_an_image_folder_with_a_table(tmp_path: Path):
    (tmp_path / "1.png").write_bytes(png(1))
    write_table(tmp_path / "metadata.csv", [{"file_name": "1.png", "text": "what?"}], ",")
    assert read(tmp_path) == [{"custom_id": "row-1", "question": "what?", "images": ["1.png"]}]


ANTHROPIC = {
    "custom_id": "a",
    "params": {
        "model": "claude",
        "max_tokens": 9,
        "top_k": 3,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {"role": "user", "content": "hello"},
            {"role": "assistant", "content": [{"type": "text", "text": "hi"}]},
            {"role": "user", "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": b64(1)}},
                {"type": "text", "text": "What?"}]},
        ],
    },
}  # fmt: skip
GEMINI = {
    "key": "g",
    "request": {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "hello"}]},
            {"role": "model", "parts": [{"text": "hi"}]},
            {"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": b64(1)}}, {"text": "What?"}]},
        ],
        "generationConfig": {"maxOutputTokens": 9, "topK": 3},
    },
}


@pytest.mark.parametrize(("record", "name"), [(ANTHROPIC, "a"), (GEMINI, "g")])
def test_lines_of_other_apis(tmp_path: Path, record: dict[str, Any], name: str):
    path = tmp_path / "x.jsonl"
    path.write_bytes(orjson.dumps(record) + b"\n")
    line = accepted(read(path))[0]
    assert (line.custom_id, line.question, len(line.images)) == (name, "What?", 1)
    turns = [(turn.role, turn.text) for turn in line.context]
    assert turns == [("system", "Be brief."), ("user", "hello"), ("assistant", "hi")]
    assert line.policy == {"max_tokens": 9, "top_k": 3}


def test_lines_of_other_apis_that_cannot_be_asked_say_why(tmp_path: Path):
    tool = {"custom_id": "b", "params": {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}}
    path = tmp_path / "x.jsonl"
    path.write_bytes(orjson.dumps(ANTHROPIC) + b"\n" + orjson.dumps(tool) + b"\n")
    assert read(path)[1]["error"]["code"] == "unsupported_parameter"


@pytest.mark.parametrize(
    ("text", "message"), [(b"", "no columns"), (b"a,b\n1,2,3\n", "question"), (b"question\n1,2\n", "2 cells")]
)
def test_broken_tables(tmp_path: Path, text: bytes, message: str):
    path = tmp_path / "x.csv"
    path.write_bytes(text)
    with pytest.raises(BadInput, match=message):
        read(path)


def test_images_are_stored_once_and_named(tmp_path: Path):
    path = tmp_path / "x.parquet"
    pq.write_table(feature_table(30), path)
    stored: list[str] = []
    text = b"".join(
        jsonl(read(path), lambda _: [digest(png(0))], lambda sha, _data, kind: stored.append(f"{kind} {sha}"))
    )
    assert sorted(stored) == sorted(f"image/png {digest(png(n))}" for n in (1, 2))
    assert orjson.loads(text.splitlines()[0])["images"] == [f"blob:{digest(png(0))}"]


def test_a_broken_image_is_told_with_its_line(tmp_path: Path):
    lines = [{"custom_id": "1", "question": "?", "images": [b"no image"]}]
    text = b"".join(jsonl(lines, lambda _: [], lambda *_: None))
    assert orjson.loads(text)["images"][0]["error"]["code"] == "image_unsupported_format"


CELLS = st.one_of(
    st.none(), st.text(max_size=20), st.floats(), st.integers(), st.binary(max_size=9), st.lists(st.text(max_size=4)),
    st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
)  # fmt: skip


@given(st.lists(st.fixed_dictionaries({"id": CELLS, "image": CELLS, "question": CELLS, "options": CELLS, "z": CELLS})))
def test_whatever_a_table_holds_every_row_becomes_a_line(rows: list[dict[str, Any]]):
    spec = SourceSpec(location=Path("x.csv"))
    lines = list(to_lines(rows, find_columns(["id", "image", "question", "options", "z"], spec)))
    assert len(lines) == len(rows)
    for line in lines:
        orjson.dumps({**line, "images": []})


def test_a_long_table_costs_no_memory(tmp_path: Path):
    import resource

    path = tmp_path / "long.csv"
    with path.open("w") as file:
        file.write("id,image,question\n")
        for number in range(60_000):
            file.write(f"{number},{number}.png,{'why? ' * 60}\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(1 for _ in open_source(SourceSpec(location=path)).lines) == 60_000
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * (1024 if sys.platform != "darwin" else 1) < 12 * 2**20
