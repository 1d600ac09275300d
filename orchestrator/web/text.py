"""Text of users, models and judges made harmless to look at: escaped, with everything invisible made visible.

Control characters, ANSI sequences, bidirectional overrides and zero-width characters are shown as what they
are, so that a page never looks different from what was written. HTML is never interpreted.
"""

from __future__ import annotations

import re
import unicodedata

from markupsafe import Markup, escape

LINE_LIMIT = 2_000
"""Characters of one line that are shown; a megabyte without a break would stall every browser."""
TEXT_LIMIT = 40_000
"""Characters of one text that are shown on a page; the rest is behind the raw document."""

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, except tab and newline
    "\u00ad\u061c\u115f\u1160\u17b4\u17b5\u180e"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e0fff]"
)
_NAMES = {
    "\x1b": "ESC",
    "\u202a": "LRE",
    "\u202b": "RLE",
    "\u202c": "PDF",
    "\u202d": "LRO",
    "\u202e": "RLO",
    "\u2066": "LRI",
    "\u2067": "RLI",
    "\u2068": "FSI",
    "\u2069": "PDI",
    "\u200b": "ZWSP",
    "\u200c": "ZWNJ",
    "\u200d": "ZWJ",
    "\u200e": "LRM",
    "\u200f": "RLM",
    "\ufeff": "BOM",
}


def visible(text: str) -> str:
    """`text` with hidden characters as words such as `[RLO]` or `[U+0007]`; fit for attributes and one-line cells."""
    return text if not _HIDDEN.search(text) else _HIDDEN.sub(lambda match: f"[{_name(match[0])}]", text)


def shown(text: str | None, limit: int = TEXT_LIMIT) -> Markup:
    """`text` as markup: escaped, hidden characters marked, long lines and long texts cut with a note of how much."""
    if text is None:
        return Markup("")
    *lines, last = text[:limit].split("\n")
    return Markup("\n").join([*map(_line, lines), _line(last, max(0, len(text) - limit))])


def short(text: str | None, limit: int = 80) -> str:
    """The beginning of `text` on one line, for tables and titles."""
    flat = " ".join((text or "")[: limit * 4].split())
    return visible(flat if len(flat) <= limit else f"{flat[: limit - 1]}…")


def safe_utf8(html: str) -> bytes:
    """The page as bytes; a lone surrogate, which UTF-8 cannot hold, becomes a question mark."""
    return html.encode("utf-8", "replace")


def _line(line: str, beyond: int = 0) -> Markup:
    """A line as markup; `beyond` more characters of the text come after it and are not shown."""
    cut = line[:LINE_LIMIT]
    parts: list[Markup] = []
    at = 0
    for match in _HIDDEN.finditer(cut):
        parts.append(escape(cut[at : match.start()]))
        parts.append(Markup('<span class="hidden-char" title="{}">{}</span>').format(_title(match[0]), _name(match[0])))
        at = match.end()
    parts.append(escape(cut[at:]))
    missing = max(0, len(line) - LINE_LIMIT) + beyond
    if missing:
        parts.append(_more(missing))
    return Markup("").join(parts)


def _more(count: int) -> Markup:
    return Markup('<span class="cut">… {:,} more characters</span>').format(count)


def _name(char: str) -> str:
    return _NAMES.get(char) or f"U+{ord(char):04X}"


def _title(char: str) -> str:
    return f"U+{ord(char):04X} {unicodedata.name(char, 'control character')}"
