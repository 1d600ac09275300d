"""Datasets, exports, clones and projects from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.client.test_client import png
from tests.running.command import Said, typed


def stagebeam(*arguments: str, code: int = 0, **settings: str) -> Said:
    done = typed(*arguments, **settings)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "pics").mkdir()
    for n in range(2):
        (tmp_path / "pics" / f"{n}.png").write_bytes(png(n))
    path = tmp_path / "t.tsv"
    path.write_text("id\timage\task\n" + "".join(f"{n}\tpics/{n}.png\twhat {n}?\n" for n in range(2)))
    return path


def test_a_table_is_planned_run_exported_and_cloned(live: str, table: Path):
    refused = stagebeam("job", "submit", str(table), code=2, URL=live)
    assert "--column question=NAME" in refused.stderr
    named = ("job", "submit", str(table), "--column", "question=ask", "--json")
    planned = stagebeam(*named, "--dry-run", URL=live)
    assert "images: image" in planned.stderr
    assert json.loads(planned.stdout)["accepted"] == 2
    job: dict[str, Any] = json.loads(stagebeam(*named, "--wait", URL=live).stdout)
    assert job["counts"]["done"] == 2
    out = table.with_name("out.parquet")
    stagebeam("job", "results", job["id"], "--format", "parquet", "--trace", "-o", str(out), URL=live)
    assert pq.read_table(out).num_rows == 2
    joined = stagebeam("job", "results", job["id"], "--joined", URL=live).stdout.splitlines()
    assert json.loads(joined[0])["question"] == "what 0?"
    foreseen = stagebeam("job", "clone", job["id"], "--policy", '{"seed": 9}', "--dry-run", "--json", URL=live)
    assert json.loads(foreseen.stdout)["accepted"] == 2
    twin = json.loads(stagebeam("job", "clone", job["id"], "--policy", '{"seed": 9}', "--json", URL=live).stdout)
    assert twin["policy"]["seed"] == 9


def test_a_folder_of_images_with_one_question(live: str, table: Path):
    folder = str(table.parent / "pics")
    job = json.loads(stagebeam("job", "submit", folder, "--question", "What?", "--wait", "--json", URL=live).stdout)
    assert job["counts"]["done"] == 2


def test_projects_and_their_limits(tmp_path: Path):
    here = {"DATA_DIR": str(tmp_path)}
    stagebeam("db", "upgrade", **here)
    stagebeam("project", "create", "lab", **here)
    stagebeam("project", "limit", "lab", "requests_per_minute=60", "storage_bytes=5", **here)
    stagebeam("project", "limit", "lab", "storage_bytes=", **here)
    rows = [json.loads(line) for line in stagebeam("project", "list", "--json", **here).stdout.splitlines()]
    assert {"id": "lab", "name": "lab", "limits": {"requests_per_minute": 60}} in rows
    assert "Did you mean" in stagebeam("project", "limit", "lab", "requests_per_minut=1", code=2, **here).stderr
    assert json.loads(stagebeam("key", "create", "ci", "--project", "lab", "--json", **here).stdout)["token"]


def test_changes_of_projects_and_keys_are_rehearsed_and_a_wrong_folder_is_told(tmp_path: Path):
    nowhere = stagebeam("key", "create", "ci", "--data", str(tmp_path), code=2)
    assert "name the folder that `stagebeam up` keeps its data in with --data" in nowhere.stderr
    assert list(tmp_path.iterdir()) == []
    stagebeam("db", "upgrade", DATA_DIR=str(tmp_path))
    here = ("--data", str(tmp_path), "--json")
    key = json.loads(stagebeam("key", "create", "kept", *here).stdout)["id"]
    assert json.loads(stagebeam("key", "create", "ci", "--dry-run", *here).stdout)["name"] == "ci"
    stagebeam("project", "create", "lab", "--dry-run", *here)
    stagebeam("project", "limit", "default", "storage_bytes=5", "--dry-run", *here)
    stagebeam("key", "revoke", key, "--dry-run", *here)
    keys = [json.loads(line) for line in stagebeam("key", "list", *here).stdout.splitlines()]
    assert [(row["name"], row["revoked_at"]) for row in keys] == [("kept", None)]
    projects = [json.loads(line) for line in stagebeam("project", "list", *here).stdout.splitlines()]
    assert projects == [{"id": "default", "name": "default", "limits": {}}]
    stagebeam("key", "revoke", "key_none", *here, code=3)
