from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.intake.paths import FoundFile, locate, read_file
from reasoning.errors import BadInput


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two roots with a file each, a secret beside them and links to it."""
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "deep").mkdir(parents=True)
    two.mkdir()
    (tmp_path / "one-more").mkdir()
    for path in (
        one / "a.png",
        one / "deep" / "b.png",
        two / "c.png",
        tmp_path / "secret.png",
        tmp_path / "one-more/x.png",
    ):
        path.write_bytes(path.name.encode())
    (one / "out.png").symlink_to(tmp_path / "secret.png")
    (one / "in.png").symlink_to(one / "deep" / "b.png")
    (one / "parent").symlink_to(tmp_path)
    os.mkfifo(one / "pipe.png")
    return one, two


def look(name: str, *roots: Path) -> str:
    try:
        return Path(locate(name, roots, advice="Ask.").path).name
    except BadInput as error:
        return error.code


def test_what_may_be_read(folders: tuple[Path, Path]):
    one, two = folders
    base = one.parent
    outcomes = {
        "a.png": "a.png",
        "deep/../a.png": "a.png",
        "deep/b.png": "b.png",
        "c.png": "c.png",
        "in.png": "b.png",
        str(two / "c.png"): "c.png",
        "none.png": "image_missing",
        "deep": "image_unreadable",
        "pipe.png": "image_unreadable",
        "../secret.png": "image_outside_roots",
        "../one-more/x.png": "image_outside_roots",
        "../none.png": "image_outside_roots",
        "out.png": "image_outside_roots",
        "parent/secret.png": "image_outside_roots",
        str(base / "secret.png"): "image_outside_roots",
        "/etc/passwd": "image_outside_roots",
        "/no/such/file": "image_outside_roots",
        "a\0b": "image_outside_roots",
        "x" * 5000: "image_missing",
        ".": "image_outside_roots",
    }
    assert {name: look(name, one, two) for name in outcomes} == outcomes
    assert look("a.png") == "image_outside_roots"


@given(st.lists(st.sampled_from(["..", ".", "one", "parent", "secret.png", "deep", "", "/", "out.png"]), max_size=6))
def test_no_name_leads_out(folders: tuple[Path, Path], parts: list[str]):
    one, _ = folders
    try:
        found = locate("/".join(parts), [one], advice="")
    except BadInput:
        return
    assert Path(found.path).resolve().is_relative_to(one.resolve())


def test_a_file_that_became_a_link_or_a_pipe_is_not_read(folders: tuple[Path, Path]):
    one, _ = folders
    for name in ("out.png", "pipe.png", "none.png", "deep"):
        with pytest.raises(BadInput) as caught:
            read_file(FoundFile(str(one / name), 1, 1), 100)
        assert caught.value.code == "image_unreadable"
    assert len(read_file(FoundFile(str(one / "a.png"), 1, 1), 2)) == 3
