"""The embedded stack: supervised, locked, stopped cleanly, resumed after a kill; its children die with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from orchestrator.embedded import valkey
from orchestrator.embedded.folder import FolderInUse, locked
from orchestrator.embedded.stack import check_port
from orchestrator.embedded.supervisor import LONGEST_PAUSE_S, Program, Supervisor, pause_s
from reasoning.errors import BadInput
from tests.api.conftest import line
from tests.running.up import up
from tests.services.processes import free_port, wrapped
from tests.system.driving import Client
from tests.waiting import wait_until

SLEEPER = (sys.executable, "-c", "import time; time.sleep(600)")


def test_a_dead_child_is_started_again() -> None:
    with Supervisor([Program("sleeper", SLEEPER)], os.environ) as supervisor:
        first = wait_until(lambda: supervisor.children[0].process, what="the child runs")
        first.kill()
        wait_until(lambda: supervisor.children[0].process not in (None, first), what="it runs again")
        assert supervisor.children[0].failures == 1
        second = supervisor.children[0].process
    assert second is not None
    assert second.poll() is not None


def test_a_child_that_refuses_its_settings_is_not_started_again() -> None:
    refuses = Program("refuses", (sys.executable, "-c", "raise SystemExit(2)"))
    with Supervisor([Program("sleeper", SLEEPER), refuses], os.environ) as supervisor:
        wait_until(lambda: supervisor.hopeless is not None, what="it gave up")
        assert supervisor.hopeless is supervisor.children[1]
        wait_until(lambda: not supervisor.children[0].alive, what="the others stopped too")


def test_back_off_grows_and_stays_bounded() -> None:
    pauses = [pause_s(failures) for failures in range(1, 20)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_S


PARENT = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
from orchestrator.embedded.supervisor import Program, Supervisor
child = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
with Supervisor([Program("child", (sys.executable, "-c", child, sys.argv[2]))], os.environ):
    time.sleep(600)
"""


def test_children_die_with_their_parent(tmp_path: Path) -> None:
    root, told = str(Path(__file__).parents[2]), tmp_path / "pid"
    command = [*wrapped(), sys.executable, "-c", PARENT, root, str(told)]
    parent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        child = wait_until(lambda: int(told.read_text()), what="the child said its id")
    finally:
        parent.kill()
        parent.wait()
    wait_until(lambda: not _runs(child), what="the child is gone")


def test_one_stack_per_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.embedded.folder.WAIT_S", 0.2)
    with locked(tmp_path), pytest.raises(FolderInUse, match=str(os.getpid())), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="--data"), locked(tmp_path / "file"):
        pass


def test_socket_paths_stay_short(tmp_path: Path) -> None:
    for folder in (tmp_path / "d", tmp_path / ("long" * 40)):
        folder.mkdir()
        with valkey.socket_path(folder) as path:
            assert len(str(path).encode()) <= valkey.MAX_SOCKET_PATH
            assert path.parent.is_dir()


def test_a_taken_port_says_so() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BadInput, match="--port"):
            check_port("127.0.0.1", taken.getsockname()[1])


@pytest.mark.timeout(120)
def test_up_resumes_after_a_kill_and_stops_cleanly(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with up(folder) as first, Client(first.url) as client:
        again = [sys.executable, "-m", "orchestrator.cli", "up", "--port", "0", "--data", str(folder)]
        second = subprocess.run(again, capture_output=True, text=True, timeout=25, check=False)
        assert (second.returncode, "already runs" in second.stderr) == (4, True)
        job_id = client.post("/api/jobs", {"lines": [line(f"q{i}") for i in range(40)]})["id"]
        wait_until(lambda: client.finished(job_id) >= 3, 20, what="some queries ended")
        first.process.kill()
        first.process.wait()
        with pytest.raises(httpx.TransportError):
            client.ready()
    with up(folder) as resumed, Client(resumed.url) as client:
        wait_until(lambda: client.ended(job_id), 40, what="the job ended")
        assert client.job(job_id)["counts"]["done"] == 40
        resumed.process.send_signal(signal.SIGINT)
        assert resumed.process.wait(25) == 0


def _bucket(endpoint: str, name: str) -> dict[str, str]:
    keys = {"STAGEBEAM_S3_ACCESS_KEY_ID": "key", "STAGEBEAM_S3_SECRET_ACCESS_KEY": "secret"}
    return {"STAGEBEAM_OBJECT_STORE": f"s3://{name}", "STAGEBEAM_S3_ENDPOINT_URL": endpoint, **keys}


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_up_makes_a_bucket_that_is_missing(tmp_path: Path, s3_server: str, s3_client: Any) -> None:
    """`up` starts with what `prepare` does, as the next test sees; in `test_compose` that makes the bucket of a job."""
    name = f"b{uuid4().hex}"
    with up(tmp_path / "data", settings=_bucket(s3_server, name)) as stack, Client(stack.url) as client:
        job_id = client.post("/api/jobs", {"lines": [line("q")]})["id"]
        wait_until(lambda: client.ended(job_id), 40, what="the job ended")
        assert len(client.output(job_id)) == 1
    assert s3_client.list_objects_v2(Bucket=name)["KeyCount"] > 0


@pytest.mark.timeout(120)
def test_up_refuses_a_bucket_that_can_be_neither_used_nor_made(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "orchestrator.cli", "up", "--port", "0", "--data", str(tmp_path / "data")]
    environment = {**os.environ, **_bucket(f"http://127.0.0.1:{free_port()}", "nowhere")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environment)
    assert done.returncode == 4
    assert "the bucket nowhere is missing or not ours" in done.stderr
    assert "Check its name, STAGEBEAM_S3_ENDPOINT_URL" in done.stderr


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]
    except OSError:
        return False
