"""The data stream of the demo recipe: batches that are made when they are needed.

The dataset handed to the trainer holds row numbers alone; the collator turns a batch of numbers into tensors.
What a batch holds follows from its number, so a run that was killed goes on with the very batch it would have
seen next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import PreTrainedTokenizerFast

from training.scenes.render import render
from training.scenes.world import Split, stream
from training.small.harvest import Harvested
from training.small.model import TILE
from training.small.rows import Row, as_query, build, judge_row
from training.small.tokenizer import IMAGE

MASKED = -100
"""Label of tokens that carry no loss."""
_MULTIPLE = 8
"""Lengths are padded to a multiple of this many tokens."""
OWN = "own-"
"""Kinds `own-STAGE` are judge rows from the model's own mistakes (see `harvest`)."""


@dataclass(frozen=True, slots=True)
class Phase:
    """Part of a run: up to step `until`, batches of these kinds, scenes of `things` things."""

    until: int
    things: tuple[int, int]
    shares: Mapping[str, float]
    look: tuple[int, int] = (3, 9)
    """Things in the scenes of `look` rows: the fuller a scene, the more there is to see for the price of one image."""


class Collator:
    """Row numbers to a batch of tensors; see the module's text."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        phases: Sequence[Phase],
        batch: int,
        seed: int,
        split: Split = "train",
        harvested: Mapping[str, Sequence[Harvested]] | None = None,
    ) -> None:
        self._tokenizer, self._phases, self._batch = tokenizer, tuple(phases), batch
        self._seed, self._split = seed, split
        # Rows of about equal length side by side: a batch is as long as its longest.
        self._own = {stage: sorted(found, key=_length) for stage, found in (harvested or {}).items()}
        self._image_id = tokenizer.convert_tokens_to_ids(IMAGE)

    def __call__(self, examples: Sequence[Mapping[str, int]]) -> dict[str, torch.Tensor]:
        numbers = [example["row"] for example in examples]
        kind, things = self.content(numbers[0] // self._batch)
        if kind.startswith(OWN):
            rows = self._own_rows(kind.removeprefix(OWN), numbers)
        else:
            rows = [build(kind, self._split, self._seed, number, things) for number in numbers]
        return encode(rows, self._tokenizer, self._image_id)

    def _own_rows(self, stage: str, numbers: Sequence[int]) -> list[Row]:
        found = self._own[stage]
        start = int(stream(self._split, self._seed, 2**61 + numbers[0]).integers(len(found)))
        rows = []
        for place, number in enumerate(numbers):
            scene, question, pair = found[(start + place) % len(found)]
            better_first = bool(stream(self._split, self._seed, number).random() < 0.5)
            rows.append(judge_row(as_query(question), pair, better_first, render(scene)))
        return rows

    def content(self, step: int) -> tuple[str, tuple[int, int]]:
        """Kind of the rows of a batch and how many things their scenes have."""
        phase = next((phase for phase in self._phases if step < phase.until), self._phases[-1])
        rng = stream("train", self._seed, 2**62 + step)
        kinds = list(phase.shares)
        weights = np.cumsum([phase.shares[kind] for kind in kinds])
        kind = kinds[int(np.searchsorted(weights, rng.random() * weights[-1], side="right"))]
        fewest, most = phase.look if kind == "look" else phase.things
        low = int(rng.integers(fewest, max(fewest, most - 1) + 1))
        return kind, (low, min(low + 1, most))


def encode(rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast, image_id: int) -> dict[str, torch.Tensor]:
    """Tokenise, pad on the right and mask: the loss is on the replies alone."""
    prompts = tokenizer([row.prompt for row in rows], add_special_tokens=False)["input_ids"]
    replies = tokenizer([row.reply for row in rows], add_special_tokens=False)["input_ids"]
    length = max(len(p) + len(r) for p, r in zip(prompts, replies, strict=True))
    shape = (len(rows), -(-length // _MULTIPLE) * _MULTIPLE)
    ids = np.full(shape, tokenizer.pad_token_id, dtype=np.int64)
    labels = np.full(shape, MASKED, dtype=np.int64)
    attention = np.zeros(shape, dtype=np.int64)
    for place, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
        end = len(prompt) + len(reply)
        ids[place, :end] = prompt + reply
        labels[place, len(prompt) : end] = reply
        attention[place, :end] = 1
    seen = np.cumsum(ids == image_id, axis=1)
    one = np.ones((len(rows), 1), dtype=np.int64)
    arrays: dict[str, NDArray[Any]] = {
        "input_ids": ids,
        "attention_mask": attention,
        "labels": labels,
        "pixel_values": np.stack([pixels(row.image) for row in rows])[:, None, None],
        "aspect_ratio_ids": one,
        "aspect_ratio_mask": one[..., None],
        "cross_attention_mask": seen[..., None, None],
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _length(harvested: Harvested) -> int:
    return len(harvested[2].better) + len(harvested[2].worse)


def pixels(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The image as the processor hands it to the model: shrunk to one tile, -1 to 1, channels first."""
    small = np.asarray(Image.fromarray(image).resize((TILE, TILE), Image.Resampling.BILINEAR), dtype=np.float32)
    return small.transpose(2, 0, 1) / 127.5 - 1.0
