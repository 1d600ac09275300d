"""Chat messages as one question: images in order, the last user text, earlier turns as context."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from orchestrator.intake import fields
from orchestrator.intake.fields import type_name
from orchestrator.intake.records import ImageRef, Problems
from orchestrator.intake.references import MAX_IMAGES, read_image
from reasoning.records import Turn

ROLES: Mapping[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}

MESSAGE_NAMES = frozenset(
    ("role", "content", "name", "refusal", "annotations", "audio", "tool_calls", "function_call", "reasoning_content")
)
REFUSED_NAMES = ("audio", "tool_calls", "function_call")
"""Known parts of a message that a search over image questions cannot honour."""


@dataclass(slots=True)
class Asked:
    """What the messages come to."""

    question: str = ""
    images: tuple[ImageRef, ...] = ()
    image_fields: tuple[str, ...] = ()
    context: tuple[Turn, ...] = ()


@dataclass(slots=True)
class _Reading:
    problems: Problems
    refs: list[ImageRef] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def read_messages(value: Any, problems: Problems) -> Asked | None:
    """The question, or None with every reason noted below `body.messages`."""
    name = "body.messages"
    if value is None or value == []:
        problems.add("missing_required_parameter", name, f"{name} is missing or empty; it holds the question.")
        return None
    if not isinstance(value, list):
        problems.add("invalid_type", name, f"{name} is {type_name(value)}; it must be a list.")
        return None
    reading = _Reading(problems)
    turns = [_message(item, f"{name}[{place}]", reading) for place, item in enumerate(value) if not problems.full]
    if problems.errors:
        return None
    last = turns[-1]
    if last is None or last.role != "user" or not last.text.strip():
        problems.add(
            "invalid_value", f"{name}[{len(value) - 1}]", "the last message must come from the user and hold a text."
        )
        return None
    if len(reading.refs) > MAX_IMAGES:
        problems.add("invalid_value", name, f"{name} holds {len(reading.refs)} images; use {MAX_IMAGES} at most.")
        return None
    context = tuple(turn for turn in turns[:-1] if turn and turn.text)
    return Asked(last.text, tuple(reading.refs), tuple(reading.names), context)


def _message(item: Any, name: str, reading: _Reading) -> Turn | None:
    problems = reading.problems
    if not isinstance(item, Mapping):
        problems.add("invalid_type", name, f"{name} is {type_name(item)}; it must be an object with role and content.")
        return None
    fields.unknown_names(item, MESSAGE_NAMES, problems, f"{name}.")
    for refused in REFUSED_NAMES:
        if item.get(refused):
            problems.add(
                "unsupported_parameter", f"{name}.{refused}", f"{name}.{refused} is not supported; leave it out."
            )
    role = item.get("role")
    if not isinstance(role, str) or role not in ROLES:
        problems.add("invalid_value", f"{name}.role", f"{name}.role must be one of {', '.join(ROLES)}.")
        return None
    return Turn(ROLES[role], _content(item.get("content"), f"{name}.content", role, reading))


def _content(value: Any, name: str, role: str, reading: _Reading) -> str:
    if isinstance(value, str):
        return value
    if value is None and role == "assistant":
        return ""
    if not isinstance(value, list):
        reading.problems.add("invalid_type", name, f"{name} is {type_name(value)}; it must be text or a list of parts.")
        return ""
    texts = [_part(part, f"{name}[{place}]", role, reading) for place, part in enumerate(value)]
    return "\n".join(text for text in texts if text is not None)


def _part(part: Any, name: str, role: str, reading: _Reading) -> str | None:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return str(part["text"])
    if kind == "image_url" and role == "user":
        _image(part.get("image_url"), f"{name}.image_url", reading)
    else:
        reading.problems.add(
            "invalid_value",
            name,
            f'{name} must be {{"type": "text", "text": ...}}, or in a user message '
            '{"type": "image_url", "image_url": {"url": ...}}.',
        )
    return None


def _image(value: Any, name: str, reading: _Reading) -> None:
    url = value.get("url") if isinstance(value, Mapping) else value
    ref = read_image(url, f"{name}.url", reading.problems)
    if ref:
        reading.refs.append(ref)
        reading.names.append(f"{name}.url")
