"""The same work for every contender: the demo model's own questions, each about a picture of its own."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from PIL import Image

from reasoning.policy import Policy
from reasoning.prompts import Prompt, compare_prompt, policy_prompt
from reasoning.records import Query
from reasoning.stages import Stage
from training.scenes.files import scenes
from training.scenes.render import render
from training.small.model import SETTINGS
from training.small.rows import as_query

POLICY = Policy.from_mapping(cast("dict[str, Any]", SETTINGS["policy"]))
"""Sampling as the demo model asks for it: the end tag ends a text, the limit of tokens is far away."""

JUDGE_TOKENS = 2
"""What a judge that writes may say: its label and the end of its turn. The published one writes its reason first."""

SEED = 4242
"""Of the held-out scenes."""


@dataclass(frozen=True, slots=True)
class Work:
    """Queries and their pictures by content hash."""

    queries: tuple[Query, ...]
    pictures: Mapping[str, bytes] = field(repr=False)
    policy: Policy = POLICY

    def picture(self, query: Query) -> Image.Image:
        """The one picture of a query, decoded."""
        return Image.open(io.BytesIO(self.pictures[query.images[0]])).convert("RGB")


def make_work(count: int) -> Work:
    """`count` held-out questions."""
    pictures: dict[str, bytes] = {}
    queries = []
    for number, (scene, question) in enumerate(scenes(SEED, count, "medium")):
        buffer = io.BytesIO()
        Image.fromarray(render(scene)).save(buffer, "PNG")
        key = hashlib.sha256(buffer.getvalue()).hexdigest()
        pictures[key] = buffer.getvalue()
        queries.append(as_query(question, f"q{number}", key))
    return Work(tuple(queries), pictures)


def ask(query: Query, path: str) -> Prompt:
    """The prompt of the next stage after the kept text `path`."""
    return policy_prompt(query, "compact", path)


def compare(query: Query, stage: Stage, kept: Mapping[Stage, str], shown: tuple[str, str]) -> Prompt:
    """The prompt of one comparison."""
    inner = {earlier: _inner(text, earlier) for earlier, text in kept.items()}
    first, second = (_inner(text, stage) for text in shown)
    return compare_prompt(query, "compact", "labels", stage, inner, (first, second))


def template_turns(prompt: Prompt) -> list[dict[str, object]]:
    """The prompt as chat turns for a processor."""
    return [
        {
            "role": message.role,
            "content": [*({"type": "image"} for _ in message.images), {"type": "text", "text": message.text}],
        }
        for message in prompt.messages
    ]


def _inner(text: str, stage: Stage) -> str:
    return text.strip().removeprefix(stage.open_tag).removesuffix(stage.close_tag).strip()
