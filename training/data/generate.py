"""Structured data generation: a teacher explains every question whose answer is known.

Resumable at any moment: kept rows, row errors and costs are three journals, and what stands in the first two is
not asked again. One bad row never stops the others.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reasoning.errors import BadInput, ModelError, Transient
from reasoning.prompts import question_text
from reasoning.records import Usage
from training.data import questions
from training.data.conversations import Conversation, Round
from training.data.journal import Journal, lines
from training.data.questions import Known
from training.data.structured import faults
from training.data.teachers import Draft, Teacher

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How hard to try and what it costs."""

    attempts: int = 3
    """Tries per row, for faulty texts and for failing calls together."""
    parallel: int = 8
    """Rows in hand at once."""
    backoff_s: float = 1.0
    """Wait before the second try; doubles with each further one, with jitter."""
    backoff_most_s: float = 60.0
    prompt_price: float = 0.0
    """Price of a million prompt tokens, in any currency."""
    generated_price: float = 0.0
    """Price of a million generated tokens."""
    retry_failed: bool = False
    """Ask again for rows that stand in the errors of an earlier run."""

    def __post_init__(self) -> None:
        for name, least in (("attempts", 1), ("parallel", 1), ("backoff_s", 0), ("prompt_price", 0)):
            if getattr(self, name) < least:
                raise BadInput(
                    f"{name} is {getattr(self, name)}; use {least} or more", code="invalid_value", field=name
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What stands after a run, earlier runs included."""

    rows: int
    kept: int
    failed: int
    faults: Mapping[str, int] = field(default_factory=dict)
    """How often each fault or error code was seen, tries that were mended later included."""
    calls: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cost: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Plain values under the field names."""
        return asdict(self)


def generate(
    source: Path,
    out: Path,
    teacher: Teacher,
    terms: Terms | None = None,
    *,
    sleep: Callable[[float], None] = time.sleep,
    progress: Callable[[int, int], None] = lambda done, rows: None,
) -> Outcome:
    """Have `teacher` explain the questions of `source`; kept rows go to `out` in the LLaVA-CoT format.

    Beside `out` stand `OUT.errors.jsonl`, one record per row that was given up, and `OUT.costs.jsonl`, one per
    try. `progress` is told how many rows are settled, of how many.

    Raises:
        BadInput: the questions are not usable, or a term is out of range.
    """
    terms = terms or Terms()
    known = questions.read(source)
    files = (out, out.with_name(out.name + ".errors.jsonl"), out.with_name(out.name + ".costs.jsonl"))
    with Journal(files[0]) as kept, Journal(files[1]) as errors, Journal(files[2]) as costs:
        settled = {row["id"] for row in lines(files[0])}
        if not terms.retry_failed:
            settled |= {row["id"] for row in lines(files[1])}
        due = [row for row in known if row.custom_id not in settled]
        work = _Work(teacher, terms, kept, errors, costs, sleep)
        with ThreadPoolExecutor(terms.parallel, thread_name_prefix="teacher") as pool:
            for place, _ in enumerate(pool.map(work.settle, due), 1):
                progress(len(known) - len(due) + place, len(known))
    return _sum_up(len(known), files, terms)


@dataclass(frozen=True, slots=True)
class _Work:
    teacher: Teacher
    terms: Terms
    kept: Journal
    errors: Journal
    costs: Journal
    sleep: Callable[[float], None]

    def settle(self, known: Known) -> None:
        """Try a row until it is kept or given up; either is written down."""
        code, message = "", ""
        for attempt in range(self.terms.attempts):
            if attempt:
                self.sleep(self._wait(attempt, known.custom_id))
            try:
                draft = self.teacher.write(known, attempt)
            except Transient as error:
                code, message = "transient", str(error)
                self._charge(known, attempt, Usage(), code)
                continue
            except ModelError as error:
                code, message = error.code, error.message
                self._charge(known, attempt, Usage(), code)
                if not error.retryable:
                    break
                continue
            found = faults(draft.text, known.expected)
            self._charge(known, attempt, draft.usage, ",".join(found) or "kept")
            if not found:
                self.kept.append(_row(known, draft).to_json())
                return
            code, message = found[0], f"the teacher's text has faults: {', '.join(found)}"
        self.errors.append({"id": known.custom_id, "code": code, "message": message, "attempts": attempt + 1})

    def _wait(self, attempt: int, key: str) -> float:
        longest = min(self.terms.backoff_most_s, self.terms.backoff_s * 2.0 ** (attempt - 1))
        return longest * (0.5 + 0.5 * random.Random(f"{key}/{attempt}").random())  # noqa: S311 - jitter, no secret

    def _charge(self, known: Known, attempt: int, usage: Usage, outcome: str) -> None:
        self.costs.append(
            {
                "id": known.custom_id,
                "attempt": attempt,
                "outcome": outcome,
                "prompt_tokens": usage.prompt_tokens,
                "generated_tokens": usage.generated_tokens,
            }
        )


def _row(known: Known, draft: Draft) -> Conversation:
    text = question_text(known.query(""))
    return Conversation(known.custom_id, known.image, (Round(text, draft.text.strip()),))


def _sum_up(rows: int, files: tuple[Path, Path, Path], terms: Terms) -> Outcome:
    costs = list(lines(files[2]))
    kept = {row["id"] for row in lines(files[0])}
    prompt = sum(cost["prompt_tokens"] for cost in costs)
    generated = sum(cost["generated_tokens"] for cost in costs)
    seen = Counter(fault for cost in costs if cost["outcome"] != "kept" for fault in cost["outcome"].split(","))
    return Outcome(
        rows=rows,
        kept=len(kept),
        failed=len({row["id"] for row in lines(files[1])} - kept),
        faults=dict(seen),
        calls=len(costs),
        prompt_tokens=prompt,
        generated_tokens=generated,
        cost=(prompt * terms.prompt_price + generated * terms.generated_price) / _MILLION,
    )
