"""The two things to beat, on the same weights: the published algorithm, and plain batched `generate`.

`Sequential` is our own clean writing of the published search (LLaVA-CoT, arXiv 2411.10440, and its code): every
candidate and every verdict is a `generate` call of batch 1 that preprocesses the image, runs the vision tower and
reads the whole prompt again; the stop test decodes the whole sequence at every token. `Batched` is what transformers
offers without an engine: queries in lock step, padded, `num_return_sequences` candidates that each end at their tag,
the verdicts of a round in one batch.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from benchmarks.engine_work import JUDGE_TOKENS, Work, ask, compare, template_turns
from reasoning.policy import Policy
from reasoning.prompts import Prompt, check_prompt
from reasoning.records import Query
from reasoning.stages import STAGES, Stage


def drawing(policy: Policy) -> dict[str, Any]:
    """How `generate` draws as the policy says."""
    return {
        "do_sample": True,
        "temperature": policy.temperature,
        "top_p": policy.top_p,
        "top_k": policy.top_k,
    }


class StopAtText(StoppingCriteria):  # type: ignore[misc]
    """The published stop test: decode everything, prompt included, and look for the tag."""

    def __init__(self, tokenizer: Any, tag: str) -> None:
        self._tokenizer, self._tag = tokenizer, tag

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> bool:
        return self._tag in self._tokenizer.decode(input_ids[0], skip_special_tokens=True)


class StopRows(StoppingCriteria):  # type: ignore[misc]
    """Ends each row at the token ids of its tag; `stop_strings` cannot take a tokenizer of whole words."""

    def __init__(self, tokenizer: Any, tag: str) -> None:
        self._ids = torch.tensor(tokenizer(tag, add_special_tokens=False)["input_ids"])

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return (input_ids[:, -len(self._ids) :] == self._ids.to(input_ids.device)).all(-1)


class Sequential:
    """One generation at a time."""

    def __init__(self, model: Any, processor: Any, work: Work, *, candidates: int, judge: bool) -> None:
        self._model, self._processor, self._work = model, processor, work
        self._candidates, self._judge = candidates, judge
        self._draw = random.Random(0)
        self.tokens = 0
        """Drawn for candidates."""

    def run(self, queries: Sequence[Query]) -> None:
        for query in queries:
            self._search(query)

    def _search(self, query: Query) -> None:
        path: list[int] = []
        kept: dict[Stage, str] = {}
        for stage in STAGES:
            drawn = [self._generate(query, stage, path) for _ in range(self._candidates)]
            ids = self._knock_out(query, stage, kept, drawn) if self._judge else drawn[0]
            path = path + ids
            kept[stage] = self._text(ids)

    def _knock_out(self, query: Query, stage: Stage, kept: Mapping[Stage, str], drawn: list[list[int]]) -> list[int]:
        pool = list(drawn)
        while len(pool) > 1:
            first, second = (pool.pop(self._draw.randrange(len(pool))) for _ in range(2))
            pool.append(self._better(query, stage, kept, first, second))
        return pool[0]

    def _better(
        self, query: Query, stage: Stage, kept: Mapping[Stage, str], first: list[int], second: list[int]
    ) -> list[int]:
        texts = self._text(first), self._text(second)
        if stage is Stage.REASONING:
            for mine, other in ((0, second), (1, first)):
                words = self._words(check_prompt(query, kept[Stage.CAPTION], texts[mine]), None)
                if "incorrect" in words:
                    return other
        words = self._words(compare(query, stage, kept, texts), query)
        return first if words.strip().startswith("1") else second

    def _generate(self, query: Query, stage: Stage, path: list[int]) -> list[int]:
        inputs = self._inputs(ask(query, ""), query, path)
        stop = StoppingCriteriaList([StopAtText(self._processor.tokenizer, stage.close_tag)])
        out = self._model.generate(
            **inputs, **drawing(self._work.policy), max_new_tokens=self._work.policy.max_tokens, stopping_criteria=stop
        )
        ids: list[int] = out[0, inputs["input_ids"].shape[1] :].tolist()
        self.tokens += len(ids)
        return ids

    def _words(self, prompt: Prompt, query: Query | None) -> str:
        inputs = self._inputs(prompt, query, [])
        out = self._model.generate(**inputs, **drawing(self._work.policy), max_new_tokens=JUDGE_TOKENS)
        return self._text(out[0, inputs["input_ids"].shape[1] :].tolist())

    def _inputs(self, prompt: Prompt, query: Query | None, path: list[int]) -> Any:
        text = self._processor.apply_chat_template(template_turns(prompt), add_generation_prompt=True)
        images = [[self._work.picture(query)]] if query else None
        inputs = self._processor(text=[text], images=images, return_tensors="pt", add_special_tokens=False)
        if path:
            inputs["input_ids"] = torch.cat([inputs["input_ids"], torch.tensor([path])], dim=1)
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            seen = inputs["cross_attention_mask"]
            inputs["cross_attention_mask"] = torch.cat([seen, seen[:, -1:].repeat(1, len(path), 1, 1)], dim=1)
        return inputs.to(self._model.device)

    def _text(self, ids: list[int]) -> str:
        text: str = self._processor.decode(ids, skip_special_tokens=True)
        return text


class Batched:
    """All queries in flight in lock step through `generate`."""

    def __init__(self, model: Any, processor: Any, work: Work, *, candidates: int, judge: bool, flight: int) -> None:
        self._model, self._processor, self._work = model, processor, work
        self._candidates, self._judge, self._flight = candidates, judge, flight
        processor.tokenizer.padding_side = "left"
        self.tokens = 0
        """Drawn for candidates, padding left out."""

    def run(self, queries: Sequence[Query]) -> None:
        for start in range(0, len(queries), self._flight):
            self._search(queries[start : start + self._flight])

    def _search(self, queries: Sequence[Query]) -> None:
        kept: list[dict[Stage, str]] = [{} for _ in queries]
        for stage in STAGES:
            prompts = [ask(query, " ".join(kept[i].values())) for i, query in enumerate(queries)]
            stop = StoppingCriteriaList([StopRows(self._processor.tokenizer, stage.close_tag)])
            out = self._generate(
                prompts,
                queries,
                self._work.policy.max_tokens,
                num_return_sequences=self._candidates,
                stopping_criteria=stop,
            )
            self.tokens += int((out != self._processor.tokenizer.pad_token_id).sum())
            texts = self._texts(out)
            pools = [texts[i * self._candidates : (i + 1) * self._candidates] for i in range(len(queries))]
            while self._judge and any(len(pool) > 1 for pool in pools):
                pools = self._round(queries, stage, kept, pools)
            for i, pool in enumerate(pools):
                kept[i][stage] = pool[0]

    def _round(
        self, queries: Sequence[Query], stage: Stage, kept: list[dict[Stage, str]], pools: list[list[str]]
    ) -> list[list[str]]:
        pairs = [(i, pool[k], pool[k + 1]) for i, pool in enumerate(pools) for k in range(0, len(pool) - 1, 2)]
        prompts = [compare(queries[i], stage, kept[i], (a, b)) for i, a, b in pairs]
        words = self._texts(self._generate(prompts, [queries[i] for i, _, _ in pairs], JUDGE_TOKENS))
        left: list[list[str]] = [pool[len(pool) - len(pool) % 2 :] for pool in pools]
        for (i, a, b), word in zip(pairs, words, strict=True):
            left[i].append(a if word.strip().startswith("1") else b)
        return left

    def _generate(self, prompts: Sequence[Prompt], queries: Sequence[Query], length: int, **more: Any) -> torch.Tensor:
        texts = [
            self._processor.apply_chat_template(template_turns(prompt), add_generation_prompt=True) + prompt.prefix
            for prompt in prompts
        ]
        images = [[self._work.picture(query)] for query in queries]
        inputs = self._processor(text=texts, images=images, return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = inputs.to(self._model.device)
        out: torch.Tensor = self._model.generate(**inputs, **drawing(self._work.policy), **more, max_new_tokens=length)
        return out[:, inputs["input_ids"].shape[1] :]

    def _texts(self, ids: torch.Tensor) -> list[str]:
        decoded: list[str] = self._processor.batch_decode(ids, skip_special_tokens=True)
        return decoded
