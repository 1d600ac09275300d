"""What the demo shows when it is through: answers, one question's thinking, what search was worth, what it cost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.extract import Expected, agrees
from orchestrator.cli.terminal.safe import one_line
from orchestrator.cli.terminal.tree import trace_lines


@dataclass(frozen=True, slots=True)
class Run:
    """One job that ended, its result lines by custom_id, and where they lie."""

    job: dict[str, Any]
    lines: Mapping[str, Mapping[str, Any]]
    results: Path


class Report:
    """The same questions answered in one pass and by search, held against the known answers."""

    def __init__(self, questions: Path, plain: Run, searched: Run) -> None:
        self._folder, self._plain, self._searched = questions.parent, plain, searched
        with questions.open(encoding="utf-8") as asked:
            self._asked: dict[str, dict[str, Any]] = {line["custom_id"]: line for line in map(json.loads, asked)}

    def right(self, run: Run) -> set[str]:
        """The questions that a run answered as known."""
        return {name for name, asked in self._asked.items() if _agrees(asked, run.lines[name]["answer"])}

    def telling(self) -> str:
        """The question that shows most: search was right and one pass wrong, with many verdicts."""
        plain, searched = self.right(self._plain), self.right(self._searched)

        def worth(name: str) -> tuple[bool, bool, int]:
            verdicts = self._searched.lines[name]["usage"]["verdicts"]
            return name in searched - plain, name in searched, verdicts

        return max(self._asked, key=worth)

    def document(self) -> dict[str, Any]:
        """The search's job with both counts of right answers."""
        return {
            **self._searched.job,
            "results": str(self._searched.results),
            "right": len(self.right(self._searched)),
            "one_pass": {
                "id": self._plain.job["id"],
                "results": str(self._plain.results),
                "right": len(self.right(self._plain)),
            },
        }

    def lines(self, trace: Mapping[str, Any]) -> Iterator[str]:
        """All of it as text; `trace` is that of the question `telling()` names."""
        plain, searched = self.right(self._plain), self.right(self._searched)
        yield f"{'':4}{'picture':<19}{'question':<62}{'known':<10}{'one pass':<11}search"
        for name, asked in self._asked.items():
            said = [
                _mark(run, name, name in right) for run, right in ((self._plain, plain), (self._searched, searched))
            ]
            question = one_line(asked["question"], 59)
            gain = "+" if name in searched - plain else "-" if name in plain - searched else ""
            yield f"{gain:<4}{asked['images'][0]:<19}{question:<62}{asked['answer']:<10}{said[0]:<11}{said[1]}"
        yield ""
        yield "How one of them was thought through (* kept, - pruned, = the same text again):"
        asked = self._asked[trace["trace"]["custom_id"]]
        yield f"picture: {self._folder / asked['images'][0]}"
        yield from trace_lines(trace)
        yield ""
        yield from self._summary(len(plain), len(searched))

    def _summary(self, plain: int, searched: int) -> Iterator[str]:
        job = self._searched.job
        counts, usage = job["counts"], job["usage"]
        answered = counts["done"] + counts["degraded"]
        others = "".join(f", {counts[state]} {state}" for state in ("degraded", "failed", "expired") if counts[state])
        generated = usage["kept"] + usage["discarded"] + usage["judged"]
        seconds, alone = _seconds(job), _seconds(self._plain.job)
        total = counts["total"]
        yield f"right       {searched} of {total} with search, {plain} of {total} in one pass"
        yield f"queries     {answered} of {total} answered{others}"
        yield f"candidates  {usage['candidates']}, compared in {usage['verdicts']} verdicts"
        yield f"tokens      {generated} generated, {usage['kept']} of them kept, {usage['judged']} by the judge"
        yield f"prompts     {usage['prompt_tokens']} tokens, {usage['cached_tokens']} of them from a cache"
        yield f"time        {seconds:.1f} s, {seconds / total:.2f} s per query ({alone / total:.2f} s in one pass)"
        yield f"results with every candidate and verdict: {self._searched.results}"


def _agrees(asked: Mapping[str, Any], answer: str | None) -> bool:
    return answer is not None and agrees(answer, Expected(asked["answer"], tuple(asked.get("choices", ()))))


def _mark(run: Run, name: str, right: bool) -> str:
    line = run.lines[name]
    said = line["answer"] if line["answer"] is not None else f"({line['error']['code']})"
    return f"{one_line(said, 8)}{'' if right else ' x'}"


def _seconds(job: Mapping[str, Any]) -> float:
    return float((job["ended_at"] or time.time()) - (job["started_at"] or job["created_at"]))
