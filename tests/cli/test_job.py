"""The commands against a running stack, as a user types them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import png
from tests.running.command import PROGRAM, Said, environment, typed

pytestmark = pytest.mark.timeout(120)


class Shell:
    """Runs commands in a folder against the stack of `live`."""

    def __init__(self, url: str, folder: Path) -> None:
        self._url = url
        self.folder = folder

    def __call__(self, *arguments: str) -> Said:
        return typed(*arguments, folder=self.folder, URL=self._url)

    def apart(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """The same as a process of its own."""
        return subprocess.run(
            [*PROGRAM, *arguments],
            cwd=self.folder,
            env=environment(os.environ, URL=self._url),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*PROGRAM, *arguments],
            cwd=self.folder,
            env=environment(os.environ, URL=self._url),
            stderr=subprocess.PIPE,
            text=True,
            # A shell that runs the tests in the background has its children ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one thread here
        )

    def write(self, *questions: str, **fields: Any) -> str:
        (self.folder / "red.png").write_bytes(png())
        lines = [
            {"custom_id": f"q{i}", "question": question, "images": ["red.png"], **fields}
            for i, question in enumerate(questions)
        ]
        (self.folder / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return "in.jsonl"


@pytest.fixture
def shell(live: str, tmp_path: Path) -> Shell:
    return Shell(live, tmp_path)


def test_submit_wait_results_and_trace(shell: Shell) -> None:
    file = shell.write("One?", "Two?")
    done = shell.apart("job", "submit", file, "--wait", "--json", "--candidates", "2", "--seed", "3")
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert (job["status"], job["counts"]["done"], job["policy"]["candidates"], job["policy"]["seed"]) == (
        "completed",
        2,
        2,
        3,
    )
    assert "sent 1 image" in done.stderr
    fetched = shell.apart("job", "results", job["id"], "-o", "out.jsonl", "--trace")
    assert (fetched.returncode, fetched.stdout) == (0, "")
    told = shell("job", "results", job["id"], "-o", "again.jsonl", "--json")
    assert json.loads(told.stdout) == {"job": job["id"], "lines": 2, "output": "again.jsonl"}
    lines = [json.loads(line) for line in (shell.folder / "out.jsonl").read_text().splitlines()]
    assert {"custom_id", "status", "answer", "error", "usage"} <= set(lines[0])
    assert [len(line["trace"]["stages"]) for line in lines] == [4, 4]
    assert json.loads(shell("query", "show", f"{job['id']}/q1", "--json").stdout)["answer"] == lines[1]["answer"]
    tree = shell("query", "trace", f"{job['id']}/q0").stdout
    assert all(stage in tree for stage in ("SUMMARY", "CAPTION", "REASONING", "CONCLUSION", "kept"))
    assert job["id"] in shell("job", "list").stdout
    assert json.loads(shell("job", "show", job["id"], "--json").stdout)["id"] == job["id"]
    assert shell("query", "show", f"{job['id']}/nope").returncode == 3
    assert shell("job", "watch", job["id"]).returncode == 0


def test_a_query_that_fails_is_1(shell: Shell) -> None:
    done = shell("job", "submit", shell.write("Fine?", "Broken? #crash"), "--wait", "--json")
    job = json.loads(done.stdout)
    assert (done.returncode, job["counts"]["done"], job["counts"]["failed"]) == (1, 1, 1)
    line = json.loads(shell("job", "results", job["id"]).stdout.splitlines()[1])
    assert (line["status"], line["answer"]) == ("failed", None)
    assert set(line["error"]) == {"code", "message", "stage", "attempts", "retryable"}


def test_bad_lines_are_told_and_nothing_runs(shell: Shell) -> None:
    shell.write("Fine?")
    with (shell.folder / "in.jsonl").open("a") as lines:
        lines.write('{"custom_id": "q1", "question": "?", "image": ["red.png"]}\n{"custom_id"\n')
        lines.write('{"custom_id": "q3", "question": "?", "images": ["/etc/passwd"]}\n')
        lines.write('{"custom_id": "q4", "question": "?", "images": ["gone.png"]}\n')
    done = shell("job", "submit", "in.jsonl", "--json")
    assert done.returncode == 2
    job = json.loads(done.stdout)
    assert job["status"] == "failed"
    assert {error["line"] for error in job["errors"]} == {2, 3, 4, 5}
    assert all(word in done.stderr for word in ("unknown_field", '"images"', "image_outside_roots", "image_missing"))
    plan = shell("job", "submit", "in.jsonl", "--dry-run", "--json", "--on-bad-line", "skip")
    assert (plan.returncode, json.loads(plan.stdout)["refused"]) == (2, 4)
    skipped = shell("job", "submit", "in.jsonl", "--wait", "--json", "--on-bad-line", "skip")
    counts = json.loads(skipped.stdout)["counts"]
    assert (skipped.returncode, counts["done"], counts["failed"]) == (1, 1, 4)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--policy", "nope"], 2, "--policy"),
        (["--policy", '{"candidats": 2}'], 2, "candidates"),
        (["--candidates", "0"], 2, "policy.candidates"),
        (["--strategy", "stage_bem"], 2, "stage_beam"),
        (["--priority", "now"], 2, "priority"),
    ],
)
def test_a_bad_flag_says_what_to_do(shell: Shell, arguments: list[str], code: int, said: str) -> None:
    done = shell("job", "submit", shell.write("One?"), *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_steering_and_detaching(shell: Shell) -> None:
    shell.write(*(f"{i}? #slow" for i in range(200)))
    job = json.loads(shell("job", "submit", "in.jsonl", "--json", "--name", "long").stdout)
    watching = shell.start("job", "watch", job["id"])
    assert watching.stderr is not None
    watching.stderr.readline()
    watching.send_signal(signal.SIGINT)
    assert watching.wait(20) == 130
    assert f"stagebeam job watch {job['id']}" in watching.stderr.read()
    watching.stderr.close()
    assert "paused" in shell("job", "pause", job["id"], "--reason", "lunch", "--json").stdout
    assert shell("job", "resume", job["id"]).returncode == 0
    assert json.loads(shell("job", "cancel", job["id"], "--dry-run", "--json").stdout)["status"] == "running"
    first = shell("job", "cancel", job["id"], "--json")
    assert json.loads(first.stdout)["status"] == "cancelling"
    assert f"stagebeam job cancel {job['id']} --now" in first.stderr
    second = json.loads(shell("job", "cancel", job["id"], "--now", "--json").stdout)
    assert second["killed_at"] is not None
    assert shell("job", "watch", job["id"]).returncode == 1
    assert shell("job", "cancel", job["id"]).returncode in (0, 4)
    assert shell("job", "show", "job_none").returncode == 3


def test_files_come_with_their_manifest(shell: Shell) -> None:
    shell.write("One?", "Two?")
    job = json.loads(shell("job", "submit", "in.jsonl", "--json", "--wait").stdout)
    done = shell("job", "files", job["id"], "-o", "got", "--json")
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)
    assert json.loads((shell.folder / "got" / "manifest.json").read_text()) == manifest
    assert (manifest["counts"]["done"], [entry["lines"] for entry in manifest["files"]]) == (2, [2])
    data = (shell.folder / "got" / "output.jsonl").read_bytes()
    assert hashlib.sha256(data).hexdigest() == manifest["files"][0]["sha256"]
    assert [json.loads(line)["custom_id"] for line in data.splitlines()] == ["q0", "q1"]
    assert json.loads(shell("job", "files", job["id"], "--json").stdout) == manifest
    (shell.folder / "taken").write_text("a file")
    assert shell("job", "files", job["id"], "-o", "taken").returncode == 2


def test_labels(shell: Shell) -> None:
    shell.write("One?")
    done = shell("job", "submit", "in.jsonl", "--json", "--wait", "--label", "night", "--label", "team=vision")
    assert json.loads(done.stdout)["metadata"] == {"night": "", "team": "vision"}
    assert json.loads(shell("job", "list", "--filter", "label:team=vision", "--json").stdout)["name"] == "in.jsonl"
    assert shell("job", "list", "--filter", "label:day", "--json").stdout == ""
    assert shell("job", "list", "--filter", "lable:day").returncode == 2
    assert shell("job", "submit", "in.jsonl", "--label", "a=1", "--label", "a=2").returncode == 2


def test_workers(shell: Shell) -> None:
    workers = [json.loads(line) for line in shell("worker", "list", "--json").stdout.splitlines()]
    assert [(worker["state"], worker["model"]) for worker in workers] == [("ready", "scripted")]
    assert shell("worker", "drain", workers[0]["id"], "--dry-run", "--json").returncode == 0
    assert shell("worker", "drain", "nobody").returncode == 3


def test_input_from_stdin(shell: Shell) -> None:
    shell.write("One?")
    text = (shell.folder / "in.jsonl").read_text()
    done = shell.apart("job", "submit", "-", "--wait", "--json", stdin=text)
    assert json.loads(done.stdout)["counts"]["done"] == 1


def test_an_unwritable_output_leaves_nothing(shell: Shell) -> None:
    job = json.loads(shell("job", "submit", shell.write("One?"), "--wait", "--json").stdout)
    assert shell("job", "results", job["id"], "-o", "no/such/folder.jsonl").returncode == 2
    assert not (shell.folder / "no").exists()
