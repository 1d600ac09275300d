"""Checks that both line forms share: ids, texts, policy overrides, unknown names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from orchestrator.intake.records import Problems, shorten
from reasoning.errors import BadInput, nearest
from reasoning.policy import Policy, checked_fields
from reasoning.strategies import strategy_named

MAX_CUSTOM_ID = 512
"""Characters of a custom_id: it must fit into an index entry of either database."""

MAX_NAME = 64
"""A field name longer than this is not compared with the valid ones: the comparison is quadratic."""

CACHED_POLICIES = 256

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def stand_in_id(line: int) -> str:
    """The custom_id of a refused line that has none of its own, or one that another line has."""
    return f"(line {line})"


def custom_id(record: Mapping[str, Any], problems: Problems) -> str | None:
    """The line's own name, or None with the reason noted."""
    if record.get("custom_id") is None:
        problems.add(
            "missing_required_parameter",
            "custom_id",
            "custom_id is missing; give every line a text of its own, by which you will find its answer.",
        )
        return None
    value = record["custom_id"]
    if not isinstance(value, str):
        problems.add(
            "invalid_type",
            "custom_id",
            f'custom_id is {type_name(value)}; write it as text, such as "{_shown(value)}".',
        )
        return None
    if not 1 <= len(value) <= MAX_CUSTOM_ID or _CONTROL.search(value):
        problems.add(
            "invalid_value",
            "custom_id",
            f"custom_id must have 1 to {MAX_CUSTOM_ID} characters, none of them a control character.",
        )
        return None
    if value.startswith("(line ") and value != stand_in_id(problems.line):
        problems.add(
            "invalid_value", "custom_id", f'custom_id "{value}" is a form kept for lines without one; choose another.'
        )
        return None
    return value


def unknown_names(record: Mapping[str, Any], known: frozenset[str], problems: Problems, prefix: str = "") -> None:
    """Note each name that is not among the known ones, with the nearest that is."""
    if known >= record.keys():
        return
    for name in record:
        if problems.full:
            return
        if name not in known:
            hint = nearest(name, known) if len(name) <= MAX_NAME else ""
            shown = shorten(name, MAX_NAME)
            problems.add("unknown_field", f"{prefix}{shown}", f'unknown field "{prefix}{shown}".{hint}')


def required_text(record: Mapping[str, Any], name: str, problems: Problems, advice: str) -> str:
    """A text that must be there and not be blank; an empty one with the reason noted."""
    value = record.get(name)
    if value is None:
        problems.add("missing_required_parameter", name, f"{name} is missing; {advice}")
    elif not isinstance(value, str):
        problems.add("invalid_type", name, f"{name} is {type_name(value)}; it must be text.")
    elif not value.strip():
        problems.add("invalid_value", name, f"{name} is empty; {advice}")
    else:
        return value
    return ""


class PolicyOverrides:
    """Checks the overrides of lines against the job's policy; equal overrides are checked once."""

    def __init__(self, base: Policy) -> None:
        self._base = base
        self._checked: dict[bytes, tuple[BadInput, ...]] = {}

    def check(self, value: Any, field: str, problems: Problems) -> dict[str, Any]:
        """The overrides as they are, with everything wrong in them noted below `field`."""
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            problems.add(
                "invalid_type", field, f"{field} is {type_name(value)}; it must be an object of policy fields."
            )
            return {}
        for error in self._errors(value):
            name = (error.field or "policy").removeprefix("policy").removeprefix(".")
            at = f"{field}.{name}" if name else field
            problems.add(error.code, at, told_at(error.message, error.field, at))
        return dict(value)

    def check_one(self, name: str, value: Any, field: str, problems: Problems) -> None:
        """Note what is wrong with one override, which the line writes as `field`."""
        for error in self._errors({name: value}):
            problems.add(error.code, field, told_at(error.message, error.field, field))

    def _errors(self, value: Mapping[str, Any]) -> tuple[BadInput, ...]:
        try:
            key = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
        except TypeError:
            return (BadInput("it is nested too deep.", code="invalid_value"),)
        if key not in self._checked:
            if len(self._checked) >= CACHED_POLICIES:
                self._checked.clear()
            self._checked[key] = tuple(self._each(value))
        return self._checked[key]

    def _each(self, value: Mapping[str, Any]) -> list[BadInput]:
        found = []
        for name, content in list(value.items())[:MAX_NAME]:
            try:
                if len(name) > MAX_NAME:
                    raise BadInput(f'unknown policy field "{shorten(name, MAX_NAME)}".', code="unknown_field")
                self._base.with_overrides(checked_fields({name: content}))
                if name == "strategy":
                    strategy_named(content)
            except BadInput as error:
                found.append(error)
        return found


def told_at(message: str, field: str | None, at: str) -> str:
    """The message about `field`, which whoever sent it wrote as `at`."""
    return message.replace(field, at, 1) if field else message


def type_name(value: Any) -> str:
    """The JSON word for the type of a decoded value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "an object"


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else "q-1"
