"""The native line: `custom_id`, `question`, `images`, and optional choices, answer, policy, context, metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from orchestrator.intake import fields
from orchestrator.intake.fields import PolicyOverrides, type_name
from orchestrator.intake.records import AcceptedLine, ImageRef, Problems
from orchestrator.intake.references import FORMS, MAX_IMAGES, read_image
from reasoning.records import Turn

TURN_NAMES = frozenset(("role", "text"))
NAMES = frozenset(("custom_id", "question", "images", "choices", "answer", "policy", "context", "metadata"))

MAX_CHOICES = 26
"""Choices are lettered from A to Z."""

ROLES = ("system", "user", "assistant")


def read(record: Mapping[str, Any], problems: Problems, overrides: PolicyOverrides) -> AcceptedLine | None:
    """The accepted line, or None with every reason noted.

    `images` is a list; a single text is taken for a list of one. At least one image is needed.
    """
    fields.unknown_names(record, NAMES, problems)
    own_id = fields.custom_id(record, problems)
    question = fields.required_text(record, "question", problems, "write the question about the images.")
    images, image_fields = _images(record.get("images"), problems)
    choices = _choices(record.get("choices"), problems)
    context = _context(record.get("context"), problems)
    policy = overrides.check(record.get("policy"), "policy", problems)
    extra = _extra(record, problems)
    if problems.errors or own_id is None:
        return None
    return AcceptedLine(
        custom_id=own_id,
        question=question,
        images=images,
        image_fields=image_fields,
        choices=choices,
        context=context,
        policy=policy,
        extra=extra,
    )


def _images(value: Any, problems: Problems) -> tuple[tuple[ImageRef, ...], tuple[str, ...]]:
    values = [value] if isinstance(value, str) else value
    if values is None or values == []:
        problems.add("missing_required_parameter", "images", f"images is missing or empty; name at least one. {FORMS}")
        return (), ()
    if not isinstance(values, list):
        problems.add("invalid_type", "images", f"images is {type_name(value)}; it must be a list. {FORMS}")
        return (), ()
    if len(values) > MAX_IMAGES:
        problems.add("invalid_value", "images", f"images has {len(values)} entries; use {MAX_IMAGES} at most.")
        return (), ()
    names = tuple(f"images[{place}]" for place in range(len(values)))
    found = [read_image(item, name, problems) for item, name in zip(values, names, strict=True)]
    return tuple(ref for ref in found if ref), names


def _choices(value: Any, problems: Problems) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        problems.add("invalid_type", "choices", "choices must be a list of texts, without their letters.")
        return ()
    if len(value) > MAX_CHOICES:
        problems.add(
            "invalid_value", "choices", f"choices has {len(value)} entries; use {MAX_CHOICES} at most (A to Z)."
        )
        return ()
    return tuple(value)


def _context(value: Any, problems: Problems) -> tuple[Turn, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        problems.add("invalid_type", "context", "context must be a list of earlier turns, each with role and text.")
        return ()
    turns = []
    for place, item in enumerate(value):
        name = f"context[{place}]"
        if not isinstance(item, Mapping) or not isinstance(item.get("text"), str) or item.get("role") not in ROLES:
            problems.add(
                "invalid_value", name, f'{name} must hold "role" (one of {", ".join(ROLES)}) and "text", both texts.'
            )
            continue
        fields.unknown_names(item, TURN_NAMES, problems, f"{name}.")
        turns.append(Turn(item["role"], item["text"]))
    return tuple(turns)


def _extra(record: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    answer, metadata = record.get("answer"), record.get("metadata")
    if answer is not None:
        several = isinstance(answer, list) and all(isinstance(item, str) for item in answer)
        if not several and not isinstance(answer, str | int | float):
            problems.add("invalid_type", "answer", "answer must be a text, a number, a boolean or a list of texts.")
        extra["answer"] = answer
    if metadata is not None:
        extra["metadata"] = checked_metadata(metadata, "metadata", problems)
    return extra


def checked_metadata(value: Any, field: str, problems: Problems) -> Any:
    """Free JSON of the submitter: an object that can be written back."""
    if not isinstance(value, Mapping):
        problems.add("invalid_type", field, f"{field} is {type_name(value)}; it must be an object.")
        return None
    try:
        orjson.dumps([[[value]]])  # it will be written inside the query's body
    except TypeError:
        problems.add("invalid_value", field, f"{field} is nested too deep; keep it below 250 levels.")
    return value
