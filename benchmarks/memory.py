"""Memory of processes, as the kernel counts it. `ru_maxrss` is no good for it: a child begins with its parent's."""

from __future__ import annotations

import os
from pathlib import Path


def peak_bytes(pid: int) -> int:
    """The most memory that a process had resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def resident_bytes(pid: int) -> int:
    """Memory that a process has resident now."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
