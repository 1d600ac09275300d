"""A trace as lines of text: what was proposed at each stage, what the judge said, what was kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.cli.terminal.safe import one_line

TEXT_WIDTH = 100
"""Characters shown of a text where no terminal sets a width."""
LEAST = 20
"""Characters shown at least, however narrow the terminal is."""

_MARKS = {"kept": "*", "retraced": "<", "pruned": "-", "duplicate": "=", "failed": "!", "open": "?"}


@dataclass(slots=True)
class _Fit:
    """Cuts texts to what a line has room for, and remembers whether it had to."""

    columns: int | None
    cut: bool = False

    def text(self, text: str, before: int = 0, after: int = 0) -> str:
        """The text on one line, beside so many other characters."""
        room = TEXT_WIDTH if self.columns is None else max(LEAST, self.columns - before - after)
        found = one_line(text, room)
        self.cut = self.cut or found.endswith("…")
        return found


def trace_lines(found: Mapping[str, Any], columns: int | None = None) -> Iterator[str]:
    """The lines of an answer of `/api/queries/{id}/trace`, cut to the columns of a terminal where there is one."""
    trace, fit = found["trace"], _Fit(columns)
    yield f"{trace['custom_id']}  {fit.text(trace['question'], len(trace['custom_id']) + 2)}"
    for letter, choice in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", trace["choices"], strict=False):
        yield f"  {letter}. {fit.text(choice, 5)}"
    for stage in trace["stages"]:
        yield from _stage_lines(stage, fit)
    yield ""
    yield from _end_lines(found["query"])
    if fit.cut:
        yield f"Texts that end in … are cut; `stagebeam query trace {found['query']['id']} --json` has all of them."


def _stage_lines(stage: Mapping[str, Any], fit: _Fit) -> Iterator[str]:
    yield ""
    flaw = "" if stage["flaw"] is None else f"  ({stage['flaw']})"
    again = f", round {stage['round'] + 1}" if stage.get("round") else ""
    yield f"{stage['stage'].upper()}{again}{flaw}"
    for candidate in stage["candidates"]:
        mark = _MARKS.get(candidate["status"], "?")
        before = f"  {mark} {candidate['index']}  {candidate['status']:<9} "
        text = candidate.get("inner") or candidate.get("text") or ""
        reason = f"  [{candidate['reason']}]" if candidate["reason"] else ""
        if text:
            yield before + fit.text(text, len(before), len(reason)) + reason
        else:
            yield before + fit.text(reason.strip(), len(before))
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
        yield f"{query['status'].upper()}  {error.get('code')}: {error.get('message')}"
        return
    note = f" ({query['degraded_reason']})" if query["degraded_reason"] else ""
    yield f"{query['status'].upper()}{note}  {query['answer'] or ''}"
