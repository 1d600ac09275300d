"""What the models are told: the policy prompt, the judge prompt of each stage, the published pre-check.

Three styles. `standard` explains the four stages in a system message, for models that were not trained on
them. `tuned` leaves that out, for checkpoints such as LLaVA-CoT whose weights hold the format. `compact`
also has a judge go on from where two texts part, for small models trained on exactly this: the path and what both
texts begin with is the model's own turn so far, as when it drew them, and it chooses between the next words of both.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from reasoning.policy import Judge, PromptStyle
from reasoning.records import WHOLE, Query
from reasoning.stages import Stage

LABELS: tuple[str, str] = ("1", "2")
"""The two words a judge chooses between, unless the prompt has its own; the first names the text shown first."""

CHECK_LABELS: tuple[str, str] = ("correct", "incorrect")


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message. `images` are content hashes, shown before the text."""

    role: Literal["system", "user", "assistant"]
    text: str
    images: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """Messages for the chat template, then `prefix`: the assistant's text so far, which the model continues."""

    messages: tuple[Message, ...]
    prefix: str = ""
    labels: tuple[str, str] = LABELS
    """Of a comparison: the words that stand for the text shown first and second."""

    @property
    def images(self) -> tuple[str, ...]:
        """All image hashes in the order shown."""
        return tuple(image for message in self.messages for image in message.images)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the whole prompt, images by hash. Kept: engines, judges and verdicts all ask for it."""
        parts = [[m.role, m.text, list(m.images)] for m in self.messages]
        return hashlib.sha256(json.dumps([parts, self.prefix]).encode()).hexdigest()


SYSTEM = (
    "You answer questions about images by thinking in four stages. Write each stage once, in this order, "
    "between its tags:\n"
    "<SUMMARY>the plan: how you will go about the question</SUMMARY>\n"
    "<CAPTION>what the image shows, as far as the question needs it</CAPTION>\n"
    "<REASONING>the steps that lead from the image to the answer</REASONING>\n"
    "<CONCLUSION>the answer alone, in the form that the question asks for</CONCLUSION>\n"
    "For a multiple-choice question the conclusion is the letter of one option."
)

_CRITERIA: Mapping[str, str] = {
    Stage.SUMMARY: (
        "the better plan for answering the question. A plan names the steps; it does not carry them out, "
        "so do not reward calculations or image details"
    ),
    Stage.CAPTION: (
        "the better description of what the question needs from the image. Prefer the one with fewer errors, "
        "then the one that is more complete; concrete detail counts, general remarks do not"
    ),
    Stage.REASONING: (
        "the better line of thought. Read the question, go through both texts step by step, note where they "
        "differ, and prefer the one with fewer mistakes"
    ),
    Stage.CONCLUSION: (
        "the answer that serves the question better. It must follow from the reasoning given as a hint and "
        "must not refuse to answer"
    ),
    WHOLE: "the better answer to the question: correct first, then clear",
}

_PIECE = re.compile(r"\s*(?:</?[A-Z]+>|[^\s,.;:!?<]+|[,.;:!?<])")
_APART_WORDS, _AFTER_WORDS = 32, 3
"""Words of a compact comparison: of each text from where they part, and shared ones after that."""

_HINT_STAGES: Mapping[str, tuple[Stage, ...]] = {
    Stage.REASONING: (Stage.CAPTION,),
    Stage.CONCLUSION: (Stage.CAPTION, Stage.REASONING),
}
"""Which kept stages the judge is told; summary and caption are judged on the image and question alone."""


def question_text(query: Query) -> str:
    """The question with its choices, lettered from A, one a line."""
    lines = [query.question]
    lines += [f"{chr(ord('A') + place)}. {choice}" for place, choice in enumerate(query.choices)]
    return "\n".join(lines)


def policy_prompt(query: Query, style: PromptStyle, prefix: str) -> Prompt:
    """The prompt that the policy model continues; `prefix` is the kept text of the earlier stages."""
    system = (Message("system", SYSTEM),) if style == "standard" else ()
    context = tuple(Message(turn.role, turn.text) for turn in query.context)
    return Prompt((*system, *context, Message("user", question_text(query), query.images)), prefix)


def compare_prompt(
    query: Query,
    style: PromptStyle,
    judge: Judge,
    stage: str,
    kept: Mapping[Stage, str],
    shown: tuple[str, str],
) -> Prompt:
    """Asks which of two texts is better.

    `kept` maps the earlier stages to their inner texts, `shown` are the two inner texts in the order shown.
    The `labels` judge is asked for one of the prompt's labels only, the `words` judge for a reason and the
    published closing sentence ("I choose response 1/2", method.md section 2.4).
    """
    if style == "compact":
        return _compact_comparison(query, stage, kept, shown)
    text = _full_comparison(query, judge, stage, kept, shown)
    return Prompt((Message("user", text, query.images),))


def check_prompt(query: Query, caption: str, reasoning: str) -> Prompt:
    """The published pre-check of a reasoning: text only, with the caption taken for true."""
    text = (
        "Check a line of thought. Take the description as true and verify every step and every calculation.\n"
        f"Description: {caption}\nQuestion: {question_text(query)}\nReasoning: {reasoning}\n"
        'Answer with the one word "correct" or "incorrect".'
    )
    return Prompt((Message("user", text),))


def _full_comparison(query: Query, judge: Judge, stage: str, kept: Mapping[Stage, str], shown: tuple[str, str]) -> str:
    criterion = _CRITERIA[stage]
    hint = " ".join(kept[s] for s in _HINT_STAGES.get(stage, ()) if s in kept)
    closing = (
        'Reply in this form: "Since [reason], I choose response [1/2]."'
        if judge == "words"
        else "Reply with the number of the better response alone: 1 or 2."
    )
    parts = [
        f"You are a judge. Of two responses, choose {criterion}.",
        f"Question: {question_text(query)}",
        f"Hint: {hint}" if hint else "",
        f"Response 1: {shown[0]}",
        f"Response 2: {shown[1]}",
        f"Remember: choose {criterion}. {closing}",
    ]
    return "\n".join(part for part in parts if part)


def _compact_comparison(query: Query, stage: str, kept: Mapping[Stage, str], shown: tuple[str, str]) -> Prompt:
    both, first, second = _apart(*shown)
    text = "\n".join((f"judge {stage} : {question_text(query)}", f"1 : {first}", f"2 : {second}", "better :"))
    hints = "".join(f"{s.open_tag}{kept[s]}{s.close_tag}" for s in _HINT_STAGES.get(stage, ()) if s in kept)
    begin, end = ("", "") if stage == WHOLE else (Stage(stage).open_tag, Stage(stage).close_tag)
    # A text that the other one goes on from has ended here.
    labels = [next(iter(_pieces(rest or end)), "").strip() for rest in (first, second)]
    prefix = f"{hints}{begin}{both}"
    return Prompt(
        (Message("user", text, query.images),), prefix, (labels[0], labels[1]) if len(labels) == 2 else LABELS
    )


def _apart(first: str, second: str) -> tuple[str, str, str]:
    """What both texts begin with, and how each goes on until they agree again."""
    ours, theirs = _pieces(first), _pieces(second)
    begin = _common(ours, theirs)
    end = min(_common(ours[::-1], theirs[::-1]), len(ours) - begin, len(theirs) - begin)
    rests = [words[begin : min(len(words) - end + _AFTER_WORDS, begin + _APART_WORDS)] for words in (ours, theirs)]
    return "".join(ours[:begin]), "".join(rests[0]).strip(), "".join(rests[1]).strip()


def _pieces(text: str) -> list[str]:
    """Words, tags and marks, each with the space before it."""
    return _PIECE.findall(text)


def _common(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """How many words two texts begin with alike."""
    return next((k for k, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
