"""What a worker holds of memory is told with what it held at most."""

from __future__ import annotations

import subprocess
import sys

from tests.waiting import wait_until
from workers.memory import Memory

HELD = 300 * 2**20
CHILD = f"held = bytearray({HELD}); print('held', flush=True); input()"


def test_the_most_remembers_children_that_have_ended():
    memory = Memory("cpu")
    before = memory.look()["process"]
    assert set(memory.look()) == {"process"}
    with subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        peak = wait_until(lambda: (now := memory.look()["process"]["used"]) > before["used"] + HELD // 2 and now, 20)
        child.communicate(b"\n")
    after = memory.look()["process"]
    assert after["used"] < peak
    assert after["most"] >= peak
