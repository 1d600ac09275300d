"""Which tests of a parallel run go to one process: those that share what is slow to make, read from their files."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).parents[2]


@cache
def shares(file: str) -> str:
    """What the tests of a file share: the running `stack`, a filled `gallery`, fixtures of a `module`, or nothing."""
    text = (ROOT / file).read_text(encoding="utf-8")
    if re.search(r"\blive: str", text):
        return "stack"
    if re.search(r"\bfilled: Gallery", text):
        return "gallery"
    return "module" if 'scope="module"' in text else ""


def place(test: str) -> str:
    """The name of what runs in one process, for a test's id."""
    file, _, name = test.partition("::")
    shared = shares(file)
    if shared == "gallery":
        return f"gallery, {'postgresql' if 'postgresql' in name else 'sqlite'}"
    return {"stack": "stack", "module": file, "": test}[shared]


class Together(LoadScopeScheduling):
    """Hands out what belongs together at once, the largest first, and all other tests one by one."""

    def _split_scope(self, nodeid: str) -> str:
        return place(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together | None:
    """Unless `--dist` asks for another one."""
    return Together(config, log) if config.getvalue("dist") == "load" else None
