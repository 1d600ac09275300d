"""From rows to batches: chat template, image, and labels on what the model should say.

Prompt, padding and image tokens carry no loss (the paper's recipe masks the same, reference/method.md section 6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import ProcessorMixin

from reasoning.errors import BadInput
from training.data.conversations import Conversation

MASKED = -100
"""Label of tokens that carry no loss."""


class Batcher:
    """Collates row numbers of a mixture into tensors; images are opened when their batch is due."""

    def __init__(self, rows: Sequence[Conversation], images: Path, processor: ProcessorMixin, context: int) -> None:
        self._rows, self._images, self._processor, self._context = rows, images, processor, context

    def __call__(self, examples: Sequence[Mapping[str, int]]) -> dict[str, torch.Tensor]:
        rows = [self._rows[example["row"]] for example in examples]
        texts = [self._render(row) for row in rows]
        encoded = self._processor(
            images=[[self._open(row)] for row in rows],
            text=[text for text, _ in texts],
            padding=True,
            padding_side="right",
            add_special_tokens=False,
            return_tensors="pt",
        )
        batch: dict[str, torch.Tensor] = dict(encoded)
        labels = torch.full_like(batch["input_ids"], MASKED)
        for place, (row, (text, spoken)) in enumerate(zip(rows, texts, strict=True)):
            self._mark(labels[place], batch["input_ids"][place], row, text, spoken)
        batch["labels"] = labels
        return batch

    def _render(self, row: Conversation) -> tuple[str, list[tuple[int, int]]]:
        """The whole conversation as text, and where in it the model speaks."""
        messages: list[dict[str, Any]] = []
        spoken: list[tuple[int, int]] = []
        for number, turn in enumerate(row.rounds):
            image = [{"type": "image"}] if number == 0 else []
            messages.append({"role": "user", "content": [*image, {"type": "text", "text": turn.question}]})
            begin = len(self._template(messages, ask=True))
            messages.append({"role": "assistant", "content": [{"type": "text", "text": turn.answer}]})
            spoken.append((begin, len(self._template(messages, ask=False))))
        return self._template(messages, ask=False), spoken

    def _template(self, messages: list[dict[str, Any]], *, ask: bool) -> str:
        text: str = self._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
        return text

    def _open(self, row: Conversation) -> Image.Image:
        path = self._images / row.image
        try:
            with Image.open(path) as image:
                return image.convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise BadInput(f'row "{row.id}": cannot open {path}: {error}', code="bad_image", field="image") from None

    def _mark(
        self, labels: torch.Tensor, ids: torch.Tensor, row: Conversation, text: str, spoken: list[tuple[int, int]]
    ) -> None:
        """Set the labels of one row where the model speaks."""
        encoded = self._processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        plain, offsets = encoded["input_ids"], encoded["offset_mapping"]
        if ids[: len(plain)].tolist() != plain:
            raise BadInput(
                f"the processor {type(self._processor).__name__} rewrites the text of a prompt; this recipe trains "
                "models whose processor leaves it as it is, such as Llama-3.2-Vision",
                code="unsupported_processor",
                field="model",
            )
        if len(plain) > self._context:
            raise BadInput(
                f'row "{row.id}" has {len(plain)} tokens; context is {self._context}: raise it or drop the row',
                code="row_too_long",
                field="context",
            )
        for place, (begin, end) in enumerate(offsets):
            if any(first <= begin and end <= last for first, last in spoken):
                labels[place] = ids[place]
