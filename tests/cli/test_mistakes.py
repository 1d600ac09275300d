"""What a newcomer gets wrong: each is told with what happened, where, and what to do, and never with a traceback."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest

from orchestrator.cli.terminal.client import Api
from orchestrator.cli.terminal.exits import CommandError, Exit
from stagebeam import Client
from tests.client.test_client import lines
from tests.running.command import PROGRAM, environment, typed

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def job(live: str) -> str:
    with Client(live) as client:
        made = client.submit(lines(2)).id
        client.wait(made, 30)
    return made


MISTAKES = [
    (["jobs"], 2, 'Did you mean "job"?'),
    (["job", "submit", "question.jsonl"], 2, 'Did you mean "questions.jsonl"?'),
    (["job", "submit", "questions.jsonl", "--split", "test"], 2, "leave the split out"),
    (["job", "submit", "questions.jsonl", "--image-root", "gone"], 2, "--image-root gone is no folder"),
    (["job", "submit", "object:images/none/", "--question", "?"], 2, "no image below images/none/"),
    (["job", "list", "--status", "complete"], 2, 'Did you mean "completed"?'),
    (["job", "show", "nope"], 3, "`stagebeam job list` shows them"),
    (["job", "pause", "JOB", "--dry-run"], 4, "neither paused nor resumed"),
    (["job", "cancel", "JOB", "--dry-run"], 4, "only a job that is validating or running"),
    (["job", "retry", "JOB", "--dry-run"], 4, "no failed query"),
    (["job", "results", "JOB", "--format", "csv", "--trace", "-o", "x.csv"], 2, "leave out --trace"),
    (["job", "results", "JOB", "--format", "xls", "-o", "x.xls"], 2, "'jsonl', 'csv' or 'parquet'"),
    (["query", "show", "nope"], 2, "its number, or JOB/CUSTOM_ID"),
    (["worker", "drain", "nope"], 3, "`stagebeam worker list` shows them"),
    (["schedule", "show", "nope"], 3, "`stagebeam schedule list` shows them"),
    (["dataset", "show", "nope"], 3, "`stagebeam dataset list` shows them"),
    (["dataset", "create", "d", "questions.jsonl", "--format", "cvs"], 2, 'Did you mean "csv"?'),
    (["scenes", "--out", "questions.jsonl/x"], 2, "cannot use questions.jsonl/x"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "said"), MISTAKES, ids=[" ".join(row[0]) for row in MISTAKES])
def test_it_says_what_to_do(live: str, job: str, tmp_path: Path, arguments: list[str], code: int, said: str) -> None:
    (tmp_path / "questions.jsonl").write_text('{"custom_id": "a", "question": "?", "images": []}\n')
    done = typed(*(job if word == "JOB" else word for word in arguments), folder=tmp_path, URL=live)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert (done.returncode, done.stdout) == (code, "")


def test_a_message_is_told_once(live: str, job: str, tmp_path: Path) -> None:
    done = typed("job", "clone", job, "--priority", "now", folder=tmp_path, URL=live)
    assert done.stderr.count("'interactive', 'batch' or 'background'") == 1


def test_a_dry_run_makes_nothing(tmp_path: Path) -> None:
    for command in (["db", "upgrade"], ["prepare"]):
        done = typed(*command, "--dry-run", "--json", folder=tmp_path, DATA_DIR=str(tmp_path / "data"))
        assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_service_without_its_database_says_what_to_run(tmp_path: Path) -> None:
    settings = {"DATA_DIR": str(tmp_path / "data"), "BROKER_URL": "redis://127.0.0.1:1/0"}
    for command, given, said in (
        (["worker", "--model", "scripted"], settings, "stagebeam db upgrade"),
        (["worker", "--model", "scripted"], {"DATA_DIR": str(tmp_path / "data")}, "no broker is set"),
        (["scheduler"], settings, "stagebeam db upgrade"),
    ):
        # Apart: a service sets up the log of its process.
        done = subprocess.run(
            [*PROGRAM, *command],
            env=environment(os.environ, **given),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_exports_go_on_after_a_line_and_tell_programs_what_they_wrote(live: str, job: str, tmp_path: Path) -> None:
    flags = ("--format", "csv", "--joined", "--after", "1", "-o", "x.csv", "--json")
    told = json.loads(typed("job", "results", job, *flags, folder=tmp_path, URL=live).stdout)
    assert told == {"job": job, "bytes": (tmp_path / "x.csv").stat().st_size, "output": "x.csv"}
    assert [line.split(",")[1] for line in (tmp_path / "x.csv").read_text().splitlines()] == ["custom_id", "q1"]
    joined = typed("job", "results", job, "--joined", "--after", "1", folder=tmp_path, URL=live).stdout
    assert [json.loads(line)["custom_id"] for line in joined.splitlines()] == ["q1"]


def test_a_refused_key_says_where_commands_take_it_from() -> None:
    answer = {"error": {"message": "the key is missing; send one", "code": "invalid_api_key"}}

    def refuse(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(401, json=answer)

    with Api("http://127.0.0.1:1") as api:
        api._http = httpx.Client(base_url=api.url, transport=httpx.MockTransport(refuse))
        with pytest.raises(CommandError, match="STAGEBEAM_API_KEY") as refused:
            api.get("/api/jobs")
    assert refused.value.exit_code is Exit.REFUSED
