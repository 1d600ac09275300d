"""Multipart forms read part by part as they arrive: no part is held whole, and parts come in any order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from reasoning.errors import BadInput

MAX_FIELD_BYTES = 16 * 1024
"""Bytes of a part that is not a file."""
MAX_PARTS = 32


@dataclass(frozen=True, slots=True)
class Part:
    """One part: its name, its file name (None for a plain field) and its bytes, which can be read once."""

    name: str
    filename: str | None
    chunks: Iterator[bytes]

    def text(self) -> str:
        """The whole part as text. Raises BadInput when it is long or not UTF-8."""
        data = bytearray()
        for chunk in self.chunks:
            data += chunk
            if len(data) > MAX_FIELD_BYTES:
                raise _malformed(f'the field "{self.name[:60]}" is longer than {MAX_FIELD_BYTES} bytes')
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise _malformed(f'the field "{self.name[:60]}" is not UTF-8') from None


def boundary_of(content_type: str) -> bytes:
    """The boundary of a `multipart/form-data` content type. Raises BadInput on any other."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise BadInput(
            "send the file as multipart/form-data with the parts purpose and file", code="invalid_request", field="file"
        )
    return boundary


def read_parts(chunks: Iterator[bytes], boundary: bytes) -> Iterator[Part]:
    """The parts of a form in the order they come. What the caller leaves unread of one is skipped.

    Raises:
        BadInput: the body is no whole form.
    """
    reader = _Reader(chunks, boundary)
    count = 0
    while (part := reader.next_part()) is not None:
        count += 1
        if count > MAX_PARTS:
            raise _malformed(f"the form has more than {MAX_PARTS} parts")
        yield part
        for _ in part.chunks:
            pass
    if not reader.ended:
        raise _malformed("the form ends before its last boundary")


class _Reader:
    """Turns the callbacks of the parser into events that are taken one by one."""

    def __init__(self, chunks: Iterator[bytes], boundary: bytes) -> None:
        self._chunks = chunks
        self._events: deque[bytes | dict[str, str] | None] = deque()
        """Headers of a part, bytes of it, None at its end."""
        self._name = bytearray()
        self._value = bytearray()
        self._headers: dict[str, str] = {}
        self.ended = False
        callbacks: Any = {
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_end,
            "on_part_data": lambda data, start, end: self._events.append(data[start:end]),
            "on_part_end": lambda: self._events.append(None),
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(boundary, callbacks)
        except FormParserError as error:
            raise _malformed(str(error)) from error

    def next_part(self) -> Part | None:
        """The next part, or None at the end of the form."""
        event = self._next()
        if not isinstance(event, dict):
            return None
        _, options = parse_options_header(event.get("content-disposition", ""))
        name, filename = options.get(b"name", b""), options.get(b"filename")
        return Part(_decoded(name), None if filename is None else _decoded(filename), self._rest())

    def _rest(self) -> Iterator[bytes]:
        while isinstance(event := self._next(), bytes):
            yield event

    def _next(self) -> bytes | dict[str, str] | None:
        """The next event; None also when the body is over."""
        while not self._events:
            chunk = next(self._chunks, b"")
            if not chunk:
                return None
            try:
                self._parser.write(chunk)
            except FormParserError as error:
                raise _malformed(str(error)) from error
        return self._events.popleft()

    def _header_end(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name.clear()
        self._value.clear()

    def _headers_end(self) -> None:
        self._events.append(self._headers)
        self._headers = {}

    def _end(self) -> None:
        self.ended = True


def _decoded(name: bytes) -> str:
    # Headers came in as Latin-1 so that any byte passes; clients write names in UTF-8.
    return name.decode("utf-8", "replace")


def _malformed(why: str) -> BadInput:
    return BadInput(f"the form cannot be read: {why}; send it again", code="invalid_form", field="file")
