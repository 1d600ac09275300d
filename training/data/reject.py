"""Rejection sampling: what the current model writes, sorted by the known answer into rows for policy and judge.

For each question the search is walked stage by stage: N candidates for a stage, each carried on to a conclusion a
few times. The share of its ways that end on the known answer is a candidate's worth. Ways that end right become
SFT rows; two candidates of one stage whose worth differs clearly become judge rows, in both orders. So search
makes data, and data a better model and a better judge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from evaluation import agrees
from reasoning.errors import BadInput, ModelError, Transient
from reasoning.grammar import read_answer, read_stage
from reasoning.policy import PromptStyle
from reasoning.prompts import compare_prompt, policy_prompt, question_text
from reasoning.records import Candidate, Finish, Query
from reasoning.stages import STAGES, Stage
from training.data import questions
from training.data.conversations import Conversation, Round
from training.data.journal import Journal, lines
from training.data.questions import Known
from training.data.structured import faults
from workers.engine.protocol import Engine, Generate, Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """How much is sampled and what is kept."""

    candidates: int = 4
    """Candidates per stage."""
    ways: int = 2
    """Times that each candidate is carried on to a conclusion, the next stages drawn in one pass."""
    margin: float = 0.5
    """Least difference in worth between the two texts of a judge row."""
    keep: int = 2
    """SFT rows at most per question."""
    parallel: int = 8
    """Questions in hand at once."""
    prompts: PromptStyle = "tuned"
    """Wording of policy and judge prompts; `compact` for the demo model."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.candidates < 2 or self.ways < 1 or not 0 < self.margin <= 1:
            message = "candidates must be 2 or more, ways 1 or more, and margin above 0 and up to 1"
            raise BadInput(message, code="invalid_value", field="candidates")


@dataclass(frozen=True, slots=True, kw_only=True)
class Harvest:
    """What stands after a run, earlier runs included."""

    questions: int
    solved: int
    """Questions with at least one confirmed answer."""
    failed: int
    sft_rows: int
    judge_rows: int

    def to_json(self) -> dict[str, Any]:
        """Plain values under the field names."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Valued:
    candidate: Candidate
    worth: float
    confirmed: tuple[str, ...]
    """Whole answers through this candidate that end on the known answer."""


def reject(
    source: Path,
    out: Path,
    engine: Engine,
    sampling: Sampling,
    draws: Draws | None = None,
    *,
    progress: Callable[[int, int], None] = lambda done, rows: None,
) -> Harvest:
    """Sample answers to the questions of `source` and sort them into `out`.

    Writes `out/sft.jsonl` and `out/judge.jsonl` in the LLaVA-CoT format, and `out/done.jsonl` with one record per
    question, by which a run that was killed goes on.

    Raises:
        BadInput: the questions are not usable.
    """
    draws = draws or Draws()
    known = questions.read(source)
    digests, load_image = questions.load_images(known, source.parent)
    names = ("sft.jsonl", "judge.jsonl", "done.jsonl")
    with Journal(out / names[0]) as sft, Journal(out / names[1]) as judge, Journal(out / names[2]) as done:
        settled = {row["id"] for row in lines(out / names[2])}
        written = {row["id"] for name in names[:2] for row in lines(out / name)}
        due = [row for row in known if row.custom_id not in settled]

        def settle(row: Known) -> None:
            walk = _Walk(engine, sampling, draws, row, row.query(digests[row.image]), load_image)
            try:
                rows, pairs = walk.sort()
            except (ModelError, Transient) as error:
                done.append({"id": row.custom_id, "solved": False, "error": str(error)})
                return
            for journal, found in ((sft, [_sft_row(row, *one) for one in enumerate(rows)]), (judge, pairs)):
                for new in found:
                    if new.id not in written:
                        journal.append(new.to_json())
            done.append({"id": row.custom_id, "solved": bool(rows), "error": None})

        with ThreadPoolExecutor(draws.parallel, thread_name_prefix="reject") as pool:
            for place, _ in enumerate(pool.map(settle, due), 1):
                progress(len(known) - len(due) + place, len(known))
    ended = list(lines(out / names[2]))
    return Harvest(
        questions=len(known),
        solved=sum(record["solved"] for record in ended),
        failed=sum(record["error"] is not None for record in ended),
        sft_rows=sum(1 for _ in lines(out / names[0])),
        judge_rows=sum(1 for _ in lines(out / names[1])),
    )


@dataclass(frozen=True, slots=True)
class _Walk:
    """One question, walked through its stages."""

    engine: Engine
    sampling: Sampling
    draws: Draws
    known: Known
    query: Query
    load_image: Callable[[str], bytes]

    def sort(self) -> tuple[list[str], list[Conversation]]:
        """Confirmed whole answers, at most `keep` different ones, and judge rows of all stages."""
        kept: dict[Stage, str] = {}
        prefix = ""
        right: dict[str, None] = {}
        pairs: list[Conversation] = []
        for stage in STAGES:
            valued = self._value(stage, prefix)
            right.update(dict.fromkeys(text for one in valued for text in one.confirmed))
            pairs += self._pairs(stage, kept, valued)
            if not valued:
                break
            best = max(valued, key=lambda one: one.worth)
            kept[stage] = read_stage(best.candidate.text, stage).inner
            prefix += best.candidate.text
        return list(right)[: self.draws.keep], pairs

    def _value(self, stage: Stage, prefix: str) -> list[_Valued]:
        drawn = self._draw(stage, prefix, stage.close_tag, self.draws.candidates, stage.value)
        whole = [one for one in drawn if one.finish is Finish.STOP and read_stage(one.text, stage).format_ok]
        different = {one.text: one for one in reversed(whole)}
        return [self._carry_on(stage, prefix, one) for one in different.values()]

    def _carry_on(self, stage: Stage, prefix: str, one: Candidate) -> _Valued:
        path = prefix + one.text
        if stage is Stage.CONCLUSION:
            ends = [path]
        else:
            name = f"{stage.value}/{one.index}"
            ways = self._draw(stage, path, Stage.CONCLUSION.close_tag, self.draws.ways, name)
            ends = [path + way.text for way in ways]
        confirmed = tuple(end for end in ends if not faults(end, self.known.expected))
        said = [read_answer(end).get(Stage.CONCLUSION) for end in ends]
        worth = sum(bool(end) and agrees(end.inner, self.known.expected) for end in said if end) / len(ends)
        return _Valued(one, worth, confirmed)

    def _draw(self, stage: Stage, prefix: str, stop: str, count: int, name: str) -> Sequence[Candidate]:
        request = Generate(
            call_id=f"{self.known.custom_id}/{name}",
            prompt=policy_prompt(self.query, self.draws.prompts, prefix),
            load_image=self.load_image,
            group=self.known.custom_id,
            indices=tuple(range(count)),
            seeds=tuple(self._seed(name, place) for place in range(count)),
            stop=stop,
            sampling=self.sampling,
        )
        return self.engine.generate(request).result().candidates

    def _seed(self, name: str, place: int) -> int:
        key = f"{self.draws.seed}/{self.known.custom_id}/{name}/{place}"
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") >> 1

    def _pairs(self, stage: Stage, kept: Mapping[Stage, str], valued: Sequence[_Valued]) -> list[Conversation]:
        """Best and worst of a stage as two judge rows, if their worth differs clearly."""
        if len(valued) < 2:
            return []
        order = sorted(valued, key=lambda one: -one.worth)
        good, bad = order[0], order[-1]
        if good.worth - bad.worth < self.draws.margin:
            return []
        texts = [read_stage(one.candidate.text, stage).inner for one in (good, bad)]
        rows = []
        for place, shown in enumerate(((texts[0], texts[1]), (texts[1], texts[0]))):
            prompt = compare_prompt(self.query, self.draws.prompts, "labels", stage, kept, shown)
            name = f"{self.known.custom_id}/judge/{stage.value}/{place + 1}"
            reply = f"{prompt.prefix} {prompt.labels[place]}".strip()
            rows.append(Conversation(name, self.known.image, (Round(prompt.messages[-1].text, reply),)))
        return rows


def _sft_row(known: Known, place: int, text: str) -> Conversation:
    return Conversation(
        f"{known.custom_id}/{place}", known.image, (Round(question_text(known.query("")), text.strip()),)
    )
