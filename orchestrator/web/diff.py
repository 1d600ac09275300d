"""Two texts side by side, differing words marked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

MAX_WORDS = 3_000
"""Longer texts are shown unmarked: matching is quadratic in the worst case."""

_WORDS = re.compile(r"\s+|\w+\s*|[^\w\s]\s*")


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of one text: the same in both (white space aside), or only in this one."""

    kind: Literal["same", "only"]
    text: str


@dataclass(frozen=True, slots=True)
class Diff:
    """Both texts as runs; `changed` counts the words that differ, None when the texts were too long to compare."""

    left: list[Run]
    right: list[Run]
    changed: int | None


def word_diff(left: str, right: str) -> Diff:
    """Compare word by word; white space belongs to the word before it."""
    a, b = _WORDS.findall(left), _WORDS.findall(right)
    if len(a) > MAX_WORDS or len(b) > MAX_WORDS:
        return Diff([Run("same", left)], [Run("same", right)], None)
    runs: tuple[list[Run], list[Run]] = ([], [])
    changed = 0
    for tag, a_from, a_to, b_from, b_to in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        kind: Literal["same", "only"] = "same" if tag == "equal" else "only"
        runs[0].extend(_runs(kind, "".join(a[a_from:a_to])))
        runs[1].extend(_runs(kind, "".join(b[b_from:b_to])))
        if kind == "only":
            changed += max(a_to - a_from, b_to - b_from)
    return Diff(*runs, changed)


def only(runs: Sequence[Run], limit: int) -> str:
    """What stands in this text alone, its pieces joined by dots, `limit` characters at most."""
    joined = " … ".join(text for run in runs if run.kind == "only" and (text := run.text.strip()))
    return joined if len(joined) <= limit else f"{joined[: limit - 1]}…"


def _runs(kind: Literal["same", "only"], text: str) -> list[Run]:
    """A mark ends with its word: white space after it is the same on both sides to the eye."""
    bare = text.rstrip() if kind == "only" else text
    if not bare or bare == text:
        return [Run("same" if text.isspace() else kind, text)] if text else []
    return [Run(kind, bare), Run("same", text[len(bare) :])]
