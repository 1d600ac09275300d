"""Run a program that must not outlive its parent: `tether.py PARENT_PID PROGRAM ARGUMENT...`.

Run as a file by its path, so that it starts in a few milliseconds. On Linux the kernel kills the program when
its parent dies, however it dies; elsewhere only a clean stop of the parent stops it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From Linux `sys/prctl.h`; survives the exec below."""


def main(argv: list[str]) -> None:
    """Tie this process to its parent, then become the program."""
    parent = int(argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            sys.exit(1)  # it died before the kernel was told
    os.execv(argv[2], argv[2:])  # noqa: S606 - the argument list is the supervisor's own


if __name__ == "__main__":
    main(sys.argv)
