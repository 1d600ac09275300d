"""What a judge replied, read into showings. Unreadable stays unreadable: what follows from it is ruled elsewhere."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from reasoning.policy import Mode
from reasoning.records import Showing

_CHOICE = re.compile(
    r"(not\s{1,8}|never\s{1,8}|n['\u2019]t\s{1,8})?\b(?:choose|prefer|pick|select)\s{1,8}"
    r"(?:response|candidate|answer)\s{0,8}\[?\s{0,8}([12])\b",
    re.IGNORECASE,
)
_BARE = re.compile(r"(?:response\s{0,8})?\[?([12])\]?[.!]?", re.IGNORECASE)
_WRONG = re.compile(r"\b(?:incorrect|not\s{1,8}correct)\b", re.IGNORECASE)
_RIGHT = re.compile(r"\bcorrect\b", re.IGNORECASE)


def read_words_comparison(text: str, mode: Mode, *, order: tuple[int, ...], prompt_hash: str) -> Showing:
    """Read the words of a judge that was shown the candidates in `order`.

    `published` looks for its closing sentence alone ("I choose response 1" before "... 2"). `strict` also
    reads a bare number, and refuses a reply that chooses both.
    """
    said = _published(text) if mode == "published" else _strict(text)
    if said is None:
        return Showing(order, prompt_hash, "unparseable", None, words=text)
    return Showing(order, prompt_hash, "ok", order[said - 1], words=text)


def read_labels(probabilities: Sequence[float], *, order: tuple[int, ...], prompt_hash: str) -> Showing:
    """Read the probabilities of the two labels, the first for the candidate shown first.

    An exact tie is readable but chooses nobody; anything but two finite numbers from 0 to 1 is unreadable.
    """
    values = tuple(float(value) for value in probabilities)
    if len(values) != 2 or not all(math.isfinite(value) and 0.0 <= value <= 1.0 for value in values):
        # Not kept as numbers: NaN has no place in JSON.
        return Showing(order, prompt_hash, "unparseable", None, words=f"label probabilities {values}")
    choice = None if values[0] == values[1] else order[0 if values[0] > values[1] else 1]
    return Showing(order, prompt_hash, "ok", choice, probabilities=values)


def read_check(text: str, mode: Mode, *, index: int, prompt_hash: str) -> Showing:
    """Read a pre-check of candidate `index`: chosen if correct, nobody if not.

    `published` looks for "incorrect" and takes everything else that says "correct" for a pass.
    """
    wrong = "incorrect" in text if mode == "published" else _WRONG.search(text) is not None
    if wrong:
        return Showing((index,), prompt_hash, "ok", None, words=text)
    if _RIGHT.search(text):
        return Showing((index,), prompt_hash, "ok", index, words=text)
    return Showing((index,), prompt_hash, "unparseable", None, words=text)


def _published(text: str) -> int | None:
    return next((number for number in (1, 2) if f"I choose response {number}" in text), None)


def _strict(text: str) -> int | None:
    found = _CHOICE.findall(text)
    said = {number for negated, number in found if not negated}
    if not found and (bare := _BARE.fullmatch(text.strip())):
        said = {bare.group(1)}
    return int(said.pop()) if len(said) == 1 else None
