"""Other versions of the client, the one for Node, and Schemathesis over our own document (items 8, 15)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
EXPECTED = {
    "filename": "input.jsonl",
    "status": "completed",
    "counts": [4, 4, 0],
    "listed": True,
    "names": ["q-0", "q-1", "q-2", "q-3"],
    "answer": True,
    "stream": True,
    "refused": "batch_not_cancellable",
    "missing": "not_found",
    "deleted": True,
}


def run(command: list[str], **given: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, **given)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def installed(folder: Path, *packages: str) -> Path:
    """A virtual environment with these packages; its interpreter."""
    run([sys.executable, "-m", "venv", str(folder)])
    run([str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *packages])
    return folder / "bin"


def test_a_session_of_this_version(live: str):
    found = json.loads(run([sys.executable, str(HERE / "session.py"), live]))
    assert {name: found[name] for name in EXPECTED} == EXPECTED


@pytest.mark.slow
@pytest.mark.parametrize("packages", [("openai==2.8.0",), ("openai==1.109.1",), ("openai==1.30.0", "httpx<0.28")])
def test_older_versions(live: str, tmp_path: Path, packages: tuple[str, ...]):
    python = installed(tmp_path / "venv", *packages) / "python"
    found = json.loads(run([str(python), str(HERE / "session.py"), live]))
    assert found.pop("version") == packages[0].partition("==")[2]
    assert found == EXPECTED


@pytest.mark.slow
def test_the_node_client(live: str, tmp_path: Path):
    if not shutil.which("npm"):
        pytest.skip("npm is not installed")
    run(["npm", "init", "-y"], cwd=tmp_path)
    run(["npm", "install", "--silent", "openai"], cwd=tmp_path)
    found = json.loads(run(["node", str(HERE / "session.mjs"), live, str(tmp_path)]))
    assert found == EXPECTED


@pytest.mark.slow
def test_schemathesis_over_our_own_document(live: str, tmp_path: Path):
    program = installed(tmp_path / "venv", "schemathesis>=4,<5") / "schemathesis"
    command = [str(program), "run", f"{live}/api/openapi.json", "--url", live, "--include-path-regex", "^/v1/"]
    checks = "not_a_server_error,content_type_conformance,response_headers_conformance,response_schema_conformance"
    run([*command, "--checks", checks, "--max-examples", "30", "--no-color", "--request-timeout", "30"])
