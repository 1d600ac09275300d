"""From prompt to token ids and back, in the words of one model's processor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jinja2 import TemplateError
from numpy.typing import NDArray

from reasoning.errors import ModelError
from reasoning.prompts import Message, Prompt


class Encoder:
    """Chat template, tokenizer and end tags of one model. Thread-safe."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._tokenizer = processor.tokenizer
        image = getattr(processor, "image_token", None)
        self._reserved = sorted({*self._tokenizer.all_special_tokens, *([image] if image else [])}, key=len)
        self._pieces: list[str] = []
        self._enders: dict[str, NDArray[np.bool_]] = {}

    def ids(self, prompt: Prompt, prefix_ids: Sequence[int] = ()) -> list[int]:
        """Token ids of the rendered prompt and the path so far, one placeholder per image.

        The path is taken as ids where they are given, so that re-tokenising cannot drift.
        """
        text = self.rendered(prompt)
        # A template that writes the start token itself must not get a second one.
        bos = self._tokenizer.bos_token
        # Not verbose: a text beyond the context is refused by the engine, in words of its own.
        ids: list[int] = self._tokenizer(text, add_special_tokens=not (bos and text.startswith(bos)), verbose=False)[
            "input_ids"
        ]
        return ids + self.path_ids(prompt, prefix_ids)

    def path_ids(self, prompt: Prompt, prefix_ids: Sequence[int]) -> list[int]:
        """Token ids of the path so far: those given, or those of the prompt's prefix text."""
        if prefix_ids or not prompt.prefix:
            return list(prefix_ids)
        ids: list[int] = self._tokenizer(self._harmless(prompt.prefix), add_special_tokens=False)["input_ids"]
        return ids

    def rendered(self, prompt: Prompt) -> str:
        """The chat template's text up to where the assistant begins."""
        try:
            return self._template(prompt.messages)
        except TemplateError:
            # Some templates refuse a system message beside an image: the user then says it.
            return self._template(_system_folded_in(prompt.messages))

    def text(self, ids: Sequence[int]) -> str:
        """The text of generated ids, without special tokens."""
        words: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return words

    def label_ids(self, labels: Iterable[str]) -> list[list[int]]:
        """For each label the tokens that may begin it, with and without a space before.

        Raises:
            ModelError: `labels_not_distinct`, when two labels begin with the same token.
        """
        found = [self._first_ids(label) for label in labels]
        if sum(map(len, found)) != len(set().union(*found)):
            raise ModelError(
                "two labels begin with the same token of this model; judge in words instead",
                code="labels_not_distinct",
            )
        return [sorted(ids) for ids in found]

    def enders(self, stop: str, vocabulary: int) -> NDArray[np.bool_]:
        """(vocabulary,): which tokens hold the last character of `stop`; only after these can it be complete."""
        if stop not in self._enders:
            if not self._pieces:
                self._pieces = self._tokenizer.batch_decode([[i] for i in range(vocabulary)])
            holds = [stop[-1:] in piece for piece in self._pieces] if stop else [False] * vocabulary
            self._enders[stop] = np.array(holds)
        return self._enders[stop]

    def closes(self, ids: Sequence[int], stop: str) -> bool:
        """Whether the last token completes `stop`; looks at no more tokens than `stop` has characters."""
        return stop in self.text(ids[-len(stop) :])

    def _first_ids(self, label: str) -> set[int]:
        found = set()
        for variant in (label, f" {label}"):
            ids = self._tokenizer(variant, add_special_tokens=False)["input_ids"]
            words = [i for i in ids if self._tokenizer.decode([i]).strip()]
            found.update(words[:1])
        return found

    def _template(self, messages: Sequence[Message]) -> str:
        turns = [
            {
                "role": message.role,
                "content": [
                    *({"type": "image"} for _ in message.images),
                    {"type": "text", "text": self._harmless(message.text)},
                ],
            }
            for message in messages
        ]
        text: str = self._processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return text

    def _harmless(self, text: str) -> str:
        """The text with a blank inside every literal special token, so that no user text acts as one."""
        for token in self._reserved:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text


def _system_folded_in(messages: Sequence[Message]) -> list[Message]:
    system = "\n\n".join(message.text for message in messages if message.role == "system")
    rest = [message for message in messages if message.role != "system"]
    if system and rest:
        rest[0] = Message(rest[0].role, f"{system}\n\n{rest[0].text}", rest[0].images)
    return rest
