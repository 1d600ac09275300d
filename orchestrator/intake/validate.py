"""The streaming validator: bytes in, one accepted or refused line after the other out. Pure.

What it yields depends on the bytes and the rules alone, so an ingest that died half-way reads the file again
from the start and finds the same lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from orchestrator.intake import fields, native
from orchestrator.intake.chat import ChatReader, ChatRules
from orchestrator.intake.fields import PolicyOverrides
from orchestrator.intake.lines import TooLong, split_lines
from orchestrator.intake.records import AcceptedLine, Problems, RefusedLine, shorten
from orchestrator.intake.unpack import unpack
from reasoning.errors import BadInput
from reasoning.policy import Policy

LineFormat = Literal["native", "openai"]

FirstUse = Callable[[str, int], int | None]
"""Takes a custom_id and its line; returns the line that used it first, or None when it is new."""

_LINE_MARKER = {"error"}


@dataclass(frozen=True, slots=True, kw_only=True)
class LineRules:
    """What lines must be like."""

    line_format: LineFormat = "native"
    """`openai` takes chat lines alone; `native` takes native lines and, one by one, chat lines too."""
    policy: Policy = field(default_factory=Policy)
    """The job's policy, which overrides are checked against."""
    chat: ChatRules = field(default_factory=lambda: ChatRules(one_model=False))
    max_line_bytes: int = 32 * 2**20
    max_lines: int = 10_000_000
    max_bytes: int = 20 * 2**30
    """Decompressed bytes of the whole input."""


def validate(
    chunks: Iterable[bytes], rules: LineRules, first_use: FirstUse
) -> Iterator[tuple[int, AcceptedLine | RefusedLine]]:
    """Line number and verdict of every line that is not blank. Lines are read one at a time and not kept.

    Raises:
        BadInput: the input as a whole cannot be used: `empty_file`, `too_many_tasks`, `corrupt_compression`,
            `input_too_large`; `line` says where.
    """
    readers = _Readers(rules, first_use)
    number, count = 0, 0
    try:
        for number, line in split_lines(unpack(chunks, rules.max_bytes), rules.max_line_bytes):
            count += 1
            if count > rules.max_lines:
                raise BadInput(
                    f"the input has more than {rules.max_lines} lines; split it into several jobs.",
                    code="too_many_tasks",
                )
            yield number, readers.read(number, line)
    except BadInput as error:
        raise BadInput(error.message, code=error.code, field=error.field, line=max(number, 1)) from error
    if not count:
        raise BadInput("the input holds no line; write one JSON object a line.", code="empty_file", line=1)


class _Readers:
    """Decodes a line and hands it to the reader of its form."""

    def __init__(self, rules: LineRules, first_use: FirstUse) -> None:
        self._rules = rules
        self._first_use = first_use
        self._overrides = PolicyOverrides(rules.policy)
        self._chat = ChatReader(rules.chat, self._overrides)

    def read(self, number: int, line: bytes | TooLong) -> AcceptedLine | RefusedLine:
        problems = Problems(number)
        record = self._decode(line, problems)
        if record is None:
            return RefusedLine(tuple(problems.errors))
        accepted = self._by_form(record, problems)
        given = record.get("custom_id")
        usable = isinstance(given, str) and not any(error.field == "custom_id" for error in problems.errors)
        if usable:
            self._check_duplicate(str(given), number, problems)
        if accepted is None or problems.errors:
            return RefusedLine(tuple(problems.errors), str(given) if usable else None, _metadata_of(record, problems))
        return accepted

    def _decode(self, line: bytes | TooLong, problems: Problems) -> Mapping[str, Any] | None:
        if isinstance(line, TooLong):
            problems.add(
                "line_too_long",
                None,
                f"the line is longer than {self._rules.max_line_bytes} bytes; store its images first and name them "
                "by blob:SHA256, or raise STAGEBEAM_MAX_LINE_BYTES on the server.",
            )
            return None
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            _explain(line, error, problems)
            return None
        if not isinstance(record, dict):
            problems.add(
                "invalid_json_line", None, f"the line holds {fields.type_name(record)}; write one JSON object a line."
            )
            return None
        # A backslash is looked for first: one byte is found many times as fast as six.
        if isinstance(line, bytes) and b"\\" in line and rb"\u0000" in line and place_of_nul(record) is not None:
            problems.add(
                "invalid_value", None, r"a text holds the character \u0000, which cannot be stored; remove it."
            )
        return record

    def _by_form(self, record: Mapping[str, Any], problems: Problems) -> AcceptedLine | None:
        if record.keys() == _LINE_MARKER:
            _marked(record["error"], problems)
            return None
        is_chat = "body" in record and "question" not in record
        if self._rules.line_format == "openai" or is_chat:
            return self._chat.read(record, problems)
        return native.read(record, problems, self._overrides)

    def _check_duplicate(self, custom_id: str, number: int, problems: Problems) -> None:
        first = self._first_use(custom_id, number)
        if first is not None:
            problems.add(
                "duplicate_custom_id",
                "custom_id",
                f'custom_id "{custom_id}" was used on line {first} already; give every line one of its own.',
            )


def _explain(line: bytes, error: orjson.JSONDecodeError, problems: Problems) -> None:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as broken:
        problems.add(
            "invalid_utf8",
            None,
            f"the line is not UTF-8 (byte {broken.start + 1}); save the file as UTF-8 and send it again.",
        )
    else:
        problems.add(
            "invalid_json_line",
            None,
            f"the line is not JSON: {error.msg} at column {error.colno}; write one JSON object a line.",
        )


def place_of_nul(value: Any) -> str | None:
    """Where in decoded JSON a text or a name holds NUL, such as `body.messages.0`; None where nowhere does.

    Without recursion, as it may be nested deep.
    """
    rest: list[tuple[str, Any]] = [("", value)]
    while rest:
        place, item = rest.pop()
        if isinstance(item, str):
            if "\0" in item:
                return place.removeprefix(".")
        elif isinstance(item, dict):
            rest += [(place, name) for name in item]
            rest += [(f"{place}.{name}", below) for name, below in item.items()]
        elif isinstance(item, list):
            rest += [(f"{place}.{number}", below) for number, below in enumerate(item)]
    return None


def _marked(error: Any, problems: Problems) -> None:
    """A line that the sender could not send: `{"error": {"code", "message"}}` in its place."""
    known = isinstance(error, Mapping) and all(isinstance(error.get(key), str) for key in ("code", "message"))
    if known:
        problems.add(shorten(error["code"], 60), None, error["message"])
    else:
        problems.add("invalid_value", "error", "error must hold the texts code and message.")


def _metadata_of(record: Mapping[str, Any], problems: Problems) -> Mapping[str, Any]:
    """The metadata of a refused line of the native form, where there is nothing wrong with that."""
    found = record.get("metadata")
    wrong = any(error.field is None or error.field == "metadata" for error in problems.errors)
    return found if isinstance(found, dict) and not wrong else {}
