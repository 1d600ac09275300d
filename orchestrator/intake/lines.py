"""From a stream of bytes to numbered lines, in memory bounded by the longest line allowed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

BOM = b"\xef\xbb\xbf"


class TooLong:
    """Stands for a line above the limit; what follows in it is read past and not kept."""


TOO_LONG = TooLong()


def split_lines(chunks: Iterable[bytes], max_bytes: int) -> Iterator[tuple[int, bytes | TooLong]]:
    """The lines with their 1-based numbers, without line ends, a UTF-8 byte order mark or blank lines.

    A line above `max_bytes` comes out as `TOO_LONG` and costs no other line anything.
    """
    splitter = _Splitter(max_bytes)
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        splitter.extend(first)
        for part in others:
            yield from splitter.end()
            splitter.extend(part)
    yield from splitter.end()


class _Splitter:
    """Holds the beginning of the line that has not ended yet."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.number = 1
        self.pieces: list[bytes] = []
        self.size = 0

    def extend(self, piece: bytes) -> None:
        self.size += len(piece)
        if self.size > self.max_bytes + len(BOM) + 1:
            self.pieces.clear()
        else:
            self.pieces.append(piece)

    def end(self) -> Iterator[tuple[int, bytes | TooLong]]:
        line = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        number, cut = self.number, bool(self.size) and not line
        self.pieces, self.size, self.number = [], 0, number + 1
        if number == 1:
            line = line.removeprefix(BOM)
        line = line.removesuffix(b"\r")
        if cut or len(line) > self.max_bytes:
            yield number, TOO_LONG
        elif line and not line.isspace():
            yield number, line
