"""The tag grammar: what a model wrote for a stage, strict form first, tolerated variants second.

Strict: `<CAPTION>text</CAPTION>`, white space around it. Tolerated, with `format_ok` False: a missing open
tag (the stage began right after the prefix), other case, white space inside the tag, `(Here begins the
CAPTION stage)` / `(Here ends the CAPTION stage)` (reference/method.md section 1), text around the stage,
tags of other stages inside it, and a missing close tag, which also makes the stage incomplete.
Total over any text, in linear time.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from reasoning.records import WHOLE
from reasoning.stages import STAGES, Stage


class Reading(NamedTuple):
    """What was read for one stage."""

    inner: str
    """The text between the tags, stripped; empty when there is none."""
    complete: bool
    """The stage was closed and holds text: neither truncated nor ended early."""
    format_ok: bool
    """The strict form, nothing tolerated."""


class _Tag(NamedTuple):
    start: int
    end: int
    stage: Stage
    opens: bool


_NAMES = "summary|caption|reasoning|conclusion"
_TAG = re.compile(
    rf"<\s{{0,8}}(/?)\s{{0,8}}({_NAMES})\s{{0,8}}>"
    rf"|\(\s{{0,8}}here\s{{1,8}}(begins|ends)\s{{1,8}}the\s{{1,8}}({_NAMES})\s{{1,8}}stage\s{{0,8}}\)",
    re.IGNORECASE | re.ASCII,
)
"""White space is bounded so that no text makes the search slow."""

_STRICT: dict[str, tuple[str, str]] = {stage.value: (stage.open_tag, stage.close_tag) for stage in STAGES}


def read(text: str, stage: str) -> Reading:
    """Read the text of one candidate: of a `Stage`, or of `WHOLE`, where the CONCLUSION is what counts."""
    return _read_whole(text) if stage == WHOLE else read_stage(text, Stage(stage))


def read_stage(text: str, stage: Stage) -> Reading:
    """Read one stage from the text that a model wrote for it."""
    open_tag, close_tag = _STRICT[stage]
    body = text.strip()
    if body.startswith(open_tag) and body.endswith(close_tag):
        inner = body[len(open_tag) : -len(close_tag)]
        if "<" not in inner or not _TAG.search(inner):
            inner = inner.strip()
            return Reading(inner, complete=bool(inner), format_ok=True)
    reading, _ = _section(text, stage, _tags(text))
    return reading._replace(format_ok=False)


def read_answer(text: str) -> dict[Stage, Reading]:
    """Read a whole answer: the stages that have a tag of their own, in the order of the stages."""
    tags = _tags(text)
    found: dict[Stage, Reading] = {}
    start = 0
    for stage in STAGES:
        if any(tag.stage is stage for tag in tags):
            found[stage], start = _section(text, stage, tags, start)
            tags = [tag for tag in tags if tag.start >= start]
    return found


def continuation(text: str, stage: str) -> tuple[str, bool]:
    """The text from which the next stage goes on, and whether it is exactly what the model wrote.

    A stage that was truncated, ended early or strayed from the strict form is put into it, so that no later
    stage continues from broken text (reference/method.md section 2.5, d and e).
    """
    reading = read(text, stage)
    if stage == WHOLE or reading.format_ok:
        return text, True
    open_tag, close_tag = _STRICT[stage]
    return f"{open_tag}{reading.inner}{close_tag}", False


def _read_whole(text: str) -> Reading:
    stages = read_answer(text)
    if Stage.CONCLUSION in stages:
        inner, complete, _ = stages[Stage.CONCLUSION]
        strict = len(stages) == len(STAGES) and all(reading.format_ok for reading in stages.values())
        return Reading(inner, complete, strict)
    # Without any tag the model simply answered; with some, what it wrote is not meant for the user.
    return Reading("" if stages else text.strip(), complete=False, format_ok=False)


def _tags(text: str) -> list[_Tag]:
    found = []
    for match in _TAG.finditer(text):
        slash, angle, verb, words = match.groups()
        opens = slash == "" if angle else verb.lower() == "begins"
        found.append(_Tag(match.start(), match.end(), Stage((angle or words).lower()), opens))
    return found


def _section(text: str, stage: Stage, tags: list[_Tag], start: int = 0) -> tuple[Reading, int]:
    """The first section of `stage` from `start` on, and where it ends; `tags` are those from `start` on."""
    first = next((tag for tag in tags if tag.stage is stage), None)
    if first is not None and first.opens:
        start = first.end
        tags = [tag for tag in tags if tag.start >= start]
    close = next((tag for tag in tags if tag.stage is stage and not tag.opens), None)
    if close is None:
        end = next((tag.start for tag in tags if tag.opens and tag.stage is not stage), len(text))
        return Reading(text[start:end].strip(), complete=False, format_ok=False), end
    if first is close:
        start = max((tag.end for tag in tags if not tag.opens and tag.end <= close.start), default=start)
    inner = text[start : close.start].strip()
    plain = first is not close and first is not None and _is_strict(text, first, close, tags)
    return Reading(inner, complete=bool(inner), format_ok=plain), close.end


def _is_strict(text: str, first: _Tag, close: _Tag, tags: list[_Tag]) -> bool:
    open_tag, close_tag = _STRICT[first.stage]
    nested = any(tag.start < close.start for tag in tags)
    return not nested and text[first.start : first.end] == open_tag and text[close.start : close.end] == close_tag
