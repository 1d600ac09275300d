"""The same work for every contender: questions about distinct pictures, and how long each text gets."""

from __future__ import annotations

import hashlib
import io
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import Image, ImageDraw

from reasoning.prompts import Prompt, compare_prompt, policy_prompt
from reasoning.records import Query
from reasoning.stages import STAGES, Stage

LENGTHS: Mapping[Stage, int] = {Stage.SUMMARY: 16, Stage.CAPTION: 40, Stage.REASONING: 60, Stage.CONCLUSION: 6}
"""Tokens per candidate. Random weights never write an end tag, so the limit sets the length, for all alike."""

JUDGE_TOKENS = 2
"""What a judge that writes needs for a label and the end of its turn."""

TEMPERATURE, TOP_P, TOP_K = 0.6, 0.9, 50


@dataclass(frozen=True, slots=True)
class Work:
    """Queries and their pictures by content hash."""

    queries: tuple[Query, ...]
    pictures: Mapping[str, bytes] = field(repr=False)

    def picture(self, query: Query) -> Image.Image:
        """The one picture of a query, decoded."""
        return Image.open(io.BytesIO(self.pictures[query.images[0]])).convert("RGB")


def make_work(count: int, words: int, seed: int = 0) -> Work:
    """`count` questions of 14 known words, each about a picture of its own."""
    draw = random.Random(seed)
    pictures: dict[str, bytes] = {}
    queries = []
    for number in range(count):
        image = Image.new("RGB", (96, 96), tuple(draw.randrange(256) for _ in range(3)))  # type: ignore[arg-type]
        pen = ImageDraw.Draw(image)
        for _ in range(6):
            x, y = draw.randrange(80), draw.randrange(80)
            pen.ellipse((x, y, x + 16, y + 16), fill=tuple(draw.randrange(256) for _ in range(3)))  # type: ignore[arg-type]
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        key = hashlib.sha256(buffer.getvalue()).hexdigest()
        pictures[key] = buffer.getvalue()
        question = " ".join(f"w{draw.randrange(words)}" for _ in range(14))
        queries.append(Query(f"q{number}", question, (key,)))
    return Work(tuple(queries), pictures)


def ask(query: Query, path: str) -> Prompt:
    """The prompt of the next stage after the kept text `path`."""
    return policy_prompt(query, "compact", path)


def compare(query: Query, stage: Stage, kept: Mapping[Stage, str], shown: tuple[str, str]) -> Prompt:
    """The prompt of one comparison."""
    return compare_prompt(query, "compact", "labels", stage, kept, shown)


def template_turns(prompt: Prompt) -> list[dict[str, object]]:
    """The prompt as chat turns for a processor."""
    return [
        {
            "role": message.role,
            "content": [*({"type": "image"} for _ in message.images), {"type": "text", "text": message.text}],
        }
        for message in prompt.messages
    ]


__all__ = ["JUDGE_TOKENS", "LENGTHS", "STAGES", "TEMPERATURE", "TOP_K", "TOP_P", "Work", "make_work"]
