"""Who imports whom, and that importing does nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.test_code import PACKAGES, ROOT, sources

HEAVY = {"torch", "transformers", "celery", "sqlalchemy", "boto3", "fastapi", "pyarrow", "PIL", "alembic", "openai"}

WATCH = """
import importlib, json, sys

OURS, modules = json.loads(sys.stdin.read())
ACTS = {"socket.connect", "socket.bind", "subprocess.Popen", "os.mkdir", "os.remove", "os.rename", "os.putenv",
        "_thread.start_new_thread", "signal.signal", "os.fork", "sqlite3.connect"}
seen = []

def watch(event, arguments):
    if event not in ACTS and not (event == "open" and set(str(arguments[1] or "")) & set("wax+")):
        return
    frame = sys._getframe(1)
    while frame is not None and "importlib" not in frame.f_code.co_filename:
        if frame.f_code.co_filename.startswith(tuple(OURS)):
            seen.append([event, f"{frame.f_code.co_filename}:{frame.f_lineno}"])
            return
        frame = frame.f_back

sys.addaudithook(watch)
for module in modules:
    importlib.import_module(module)
print(json.dumps(seen))
"""


def module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def run(code: str, text: str = "") -> str:
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=text,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environ,
        timeout=55,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_imports_go_one_way():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def acts() -> list[list[str]]:
    """What our modules do when they are imported, each with its place: all in one process, as torch is slow to load."""
    paths = [path for path in sources() if path.parts[0] in PACKAGES and path.stem not in ("__main__", "env")]
    ours = [str(ROOT / name) + os.sep for name in PACKAGES]
    found: list[list[str]] = json.loads(run(WATCH, json.dumps([ours, [module_name(path) for path in paths]])))
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_does_nothing(package: str, acts: list[list[str]]):
    assert [act for act in acts if act[1].startswith(str(ROOT / package) + os.sep)] == []


def newly_loaded(names: list[str]) -> set[str]:
    """Top-level packages that importing these modules brings in."""
    code = (
        "import importlib, json, sys\n"
        "before = set(sys.modules)\n"
        "for name in json.loads(sys.stdin.read()): importlib.import_module(name)\n"
        "print(json.dumps(list(set(sys.modules) - before)))"
    )
    return {name.partition(".")[0] for name in json.loads(run(code, json.dumps(names)))}


def test_the_command_line_imports_nothing_heavy_until_a_command_runs():
    nouns = [path for path in sources() if path.is_relative_to("orchestrator/cli") and path.stem != "__main__"]
    assert newly_loaded([module_name(path) for path in nouns]) & HEAVY == set()


def test_the_method_needs_the_standard_library_alone():
    names = [module_name(path) for path in sources() if path.parts[0] == "reasoning"]
    assert newly_loaded(names) - set(sys.stdlib_module_names) == {"reasoning"}
