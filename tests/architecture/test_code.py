"""What the design asks of every file, held by reading the files."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("reasoning", "storage", "workers", "orchestrator", "training", "evaluation", "stagebeam")
GENERATED = "storage/migrations/versions"

MODULE_LINES = 400
MEDIAN_LINES = 120
FUNCTION_LINES = 60
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}
UNSAFE = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle"}


def sources() -> list[Path]:
    return [
        path.relative_to(ROOT)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if not path.relative_to(ROOT).is_relative_to(GENERATED)
    ]


def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


@pytest.fixture(scope="module")
def trees() -> dict[Path, ast.Module]:
    return {path: tree(path) for path in sources()}


def test_modules_are_short():
    lines = {path: (ROOT / path).read_text().count("\n") for path in sources()}
    assert {path: count for path, count in lines.items() if count > MODULE_LINES} == {}
    assert statistics.median(count for count in lines.values() if count > 1) <= MEDIAN_LINES


def test_functions_are_short(trees: dict[Path, ast.Module]):
    long = {
        f"{path}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for path, module in trees.items()
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    }
    assert long == {}


def test_modules_are_named_for_what_they_hold():
    assert [path for path in sources() if path.stem in VAGUE_NAMES] == []


def test_nothing_is_pickled(trees: dict[Path, ast.Module]):
    found = [f"{path}:{node.lineno}" for path, module in trees.items() for node in ast.walk(module) if _unpickles(node)]
    assert found == []


def _unpickles(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(alias.name.partition(".")[0] in UNSAFE for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        return (node.module or "").partition(".")[0] in UNSAFE
    if isinstance(node, ast.Constant):
        return node.value in ("pickle", "application/x-python-serialize")  # a serializer of Celery
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        name, words = ast.unparse(node.func), {word.arg: word.value for word in node.keywords}
        safe = words.get("weights_only")
        if name == "torch.load":
            return not (isinstance(safe, ast.Constant) and safe.value is True)
        allowed = words.get("allow_pickle")
        return allowed is not None and not (isinstance(allowed, ast.Constant) and allowed.value is False)
    return False


def test_the_environment_is_not_read_at_import(trees: dict[Path, ast.Module]):
    found = [
        f"{path}:{node.lineno}"
        for path, module in trees.items()
        for node in _at_import(module)
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") and ast.unparse(node.value) == "os"
    ]
    assert found == []


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: all but the bodies of functions and type checking."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "__name__ == '__main__'"):
            continue
        yield child
        yield from _at_import(child)
