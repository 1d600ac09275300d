"""A trace as lines of text: what was proposed at each stage, what the judge said, what was kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.cli.terminal.safe import one_line

TEXT_WIDTH = 100
"""Characters shown of a candidate; `--json` has all of it."""

_MARKS = {"kept": "*", "retraced": "<", "pruned": "-", "duplicate": "=", "failed": "!", "open": "?"}


def trace_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The lines of an answer of `/api/queries/{id}/trace`."""
    trace = found["trace"]
    yield f"{trace['custom_id']}  {one_line(trace['question'], TEXT_WIDTH)}"
    for letter, choice in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", trace["choices"], strict=False):
        yield f"  {letter}. {one_line(choice, TEXT_WIDTH)}"
    for stage in trace["stages"]:
        yield from _stage_lines(stage)
    yield ""
    yield from _end_lines(found["query"])


def _stage_lines(stage: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    flaw = "" if stage["flaw"] is None else f"  ({stage['flaw']})"
    again = f", round {stage['round'] + 1}" if stage.get("round") else ""
    yield f"{stage['stage'].upper()}{again}{flaw}"
    for candidate in stage["candidates"]:
        mark = _MARKS.get(candidate["status"], "?")
        text = one_line(candidate.get("inner") or candidate.get("text") or "", TEXT_WIDTH)
        reason = f"  [{candidate['reason']}]" if candidate["reason"] else ""
        yield f"  {mark} {candidate['index']}  {candidate['status']:<9} {text}{reason}"
    for verdict in stage["verdicts"]:
        yield f"    {_verdict_line(verdict)}"


def _verdict_line(verdict: Mapping[str, Any]) -> str:
    first, second = verdict["pair"]
    winner = "open" if verdict["winner"] is None else f"{verdict['winner']} wins"
    margin = "" if verdict["margin"] is None else f", margin {verdict['margin']:.3f}"
    swap = {True: ", both orders agree", False: ", the orders disagree"}.get(verdict["swap_agreed"], "")
    how = f" ({verdict['how']})" if verdict["how"] else ""
    return f"round {verdict['round']}: {first} against {second}: {winner}{how}{margin}{swap}"


def _end_lines(query: Mapping[str, Any]) -> Iterator[str]:
    if query["error"] is not None:
        error = query["error"]
        yield f"{query['status'].upper()}  {error.get('code')}: {one_line(str(error.get('message')), TEXT_WIDTH)}"
        return
    note = f" ({query['degraded_reason']})" if query["degraded_reason"] else ""
    yield f"{query['status'].upper()}{note}  {query['answer'] or ''}"
