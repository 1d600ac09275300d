"""The command itself: instant help, exit codes, errors that say what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli.terminal.exits import Exit, as_command_error
from orchestrator.cli.terminal.safe import plain, to_json
from reasoning.errors import BadInput, StagebeamError, Transient

HEAVY = {"torch", "transformers", "celery", "sqlalchemy", "boto3", "fastapi", "httpx", "pydantic_settings", "pyarrow"}

IMPORTS = """
import sys, contextlib, io
sys.argv = ["stagebeam", *sys.argv[1:]]
from orchestrator.cli import main
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    main()
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def stagebeam(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "orchestrator.cli", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environ}, timeout=25, check=False
    )


@pytest.mark.parametrize("arguments", [["--help"], ["job", "submit", "--help"], ["worker", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS, *arguments], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


def test_help_is_instant() -> None:
    """CPU time, as the machine may be busy, and against that of a bare interpreter, as it may be slow: eight of those.

    Of several runs each, as the clock of CPU time ticks in hundredths of a second.
    """
    bare = sum(cpu_time(lambda: subprocess.run([sys.executable, "-c", ""], check=True)) for _ in range(6))
    assert sum(cpu_time(lambda: stagebeam("--help")) for _ in range(3)) / 3 < 15 * bare / 6


def cpu_time(run: Callable[[], object]) -> float:
    """Seconds of CPU that the processes started by `run` took."""
    before = os.times()
    run()
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system


def test_help_lists_every_noun() -> None:
    text = stagebeam("--help").stdout
    for noun in ("api", "db", "demo", "doctor", "job", "orchestrator", "query", "settings", "up", "worker"):
        assert f"\n  {noun} " in text


def test_unknown_setting_names_the_nearest() -> None:
    done = stagebeam("settings", "show", STAGEBEAM_MODLE="x")
    assert done.returncode == 2
    assert "STAGEBEAM_MODEL" in done.stderr


def test_secrets_are_not_shown() -> None:
    done = stagebeam("settings", "show", "--json", STAGEBEAM_API_KEY="sb-very-secret")
    rows = {row["variable"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert rows["STAGEBEAM_API_KEY"]["value"] == "(set)"
    assert "very-secret" not in done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["job"], ["job", "list", "--nope"], ["nope"], ["job", "show"]])
def test_bad_usage_is_2(arguments: list[str]) -> None:
    assert stagebeam(*arguments).returncode == 2


def test_version() -> None:
    assert stagebeam("--version").stdout.startswith("stagebeam ")


def test_errors_become_exit_codes() -> None:
    bad = as_command_error(BadInput("no", code="c", field="f", line=3))
    assert (bad.exit_code, bad.details[0]["line"]) == (Exit.BAD_INPUT, 3)
    assert as_command_error(Transient("away")).exit_code == Exit.UNREACHABLE
    assert as_command_error(StagebeamError("no")).exit_code == Exit.REFUSED


def test_no_server_is_5() -> None:
    done = stagebeam("job", "list", "--json", STAGEBEAM_URL="http://127.0.0.1:9")
    assert done.returncode == 5
    assert json.loads(done.stderr)["error"]["code"] == "unreachable"
    assert done.stdout == ""


def test_a_missing_file_is_2() -> None:
    done = stagebeam("job", "submit", "/nowhere/in.jsonl", STAGEBEAM_URL="http://127.0.0.1:9")
    assert (done.returncode, done.stdout) == (2, "")
    assert "cannot read /nowhere/in.jsonl" in done.stderr


@given(st.text())
def test_text_cannot_steer_the_terminal(text: str) -> None:
    shown = plain(text)
    assert all(char in "\t\n" or char.isprintable() or char.isspace() or ord(char) > 0xA0 for char in shown)
    assert "\x1b" not in shown
    assert json.loads(to_json({"text": text})) == {"text": text}
    assert "\x9b" not in to_json({"text": text})


def test_doctor_reports_each_part(tmp_path: object) -> None:
    started = time.monotonic()
    done = stagebeam("doctor", "--json", STAGEBEAM_DATA_DIR=str(tmp_path), STAGEBEAM_MODEL="scripted")
    rows = {row["check"]: row for row in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, done.stdout
    assert set(rows) == {"python", "settings", "device", "model", "database", "broker", "object store"}
    assert time.monotonic() - started < 25


class _Away(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        return


def test_a_server_whose_stores_are_away_counts_as_not_reached() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Away) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        done = stagebeam("job", "show", "job_1", STAGEBEAM_URL=f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
    assert done.returncode == Exit.UNREACHABLE, done.stderr
