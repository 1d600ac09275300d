"""Checks that a teacher's text is fit to train on: all four stages in the strict form, and the known answer."""

from __future__ import annotations

import re

from evaluation import Expected, agrees
from reasoning.grammar import read_answer
from reasoning.stages import STAGES, Stage

_TAG = re.compile(r"</?[A-Za-z]+>")


def faults(text: str, expected: Expected) -> list[str]:
    """What is wrong with a structured answer, as stable words; empty when it may be kept.

    `missing_STAGE`, `empty_STAGE`, `repeated_STAGE`, `out_of_order`, `text_outside_tags`, `wrong_answer`.
    """
    found = [fault for stage in STAGES for fault in _stage_faults(text, stage)]
    if found:
        return found
    tags = [tag for stage in STAGES for tag in (stage.open_tag, stage.close_tag)]
    if [match for match in _TAG.findall(text) if match in tags] != tags:
        return ["out_of_order"]
    sections = [rf"{re.escape(s.open_tag)}.*?{re.escape(s.close_tag)}" for s in STAGES]
    if not re.fullmatch(r"\s*" + r"\s*".join(sections) + r"\s*", text, re.DOTALL):
        return ["text_outside_tags"]
    return [] if agrees(read_answer(text)[Stage.CONCLUSION].inner, expected) else ["wrong_answer"]


def _stage_faults(text: str, stage: Stage) -> list[str]:
    opened, closed = text.count(stage.open_tag), text.count(stage.close_tag)
    if not opened or not closed:
        return [f"missing_{stage.value}"]
    if opened > 1 or closed > 1:
        return [f"repeated_{stage.value}"]
    inner = text.partition(stage.open_tag)[2].partition(stage.close_tag)[0]
    return [] if inner.strip() else [f"empty_{stage.value}"]
