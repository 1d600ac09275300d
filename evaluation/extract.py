"""Reads the answer out of a CONCLUSION and compares it with the known one.

Only the CONCLUSION is read: a trace names wrong options on its way (reference/method.md section 1). What is
compared depends on the known answer: an option by its letter or its text, a number by its value, yes and no by
word, anything else by its words.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

_SPELLED = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_NUMBER = re.compile(r"(?<![\w.])-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w]|\.\d)")
_YES_NO = re.compile(r"\b(yes|no)\b")
_LEAD = re.compile(
    r"^(?:(?:so|thus|therefore|hence)\b[\s,:]*)?(?:the\s+)?(?:(?:final|correct|best)\s+)?"
    r"(?:answer|option|choice|conclusion)?\s*(?:is|:)?\s*(?:option|choice)?\s*",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_LETTER = r"[\(\[]?\s*([{letters}])\s*[\)\]]?"


@dataclass(frozen=True, slots=True)
class Expected:
    """The known answer of a question. With `choices`, it is the letter of one or its text."""

    answer: str
    choices: tuple[str, ...] = ()


def agrees(conclusion: str, expected: Expected) -> bool:
    """Whether a conclusion gives the known answer."""
    if expected.choices:
        wanted = _index(expected.answer, expected.choices)
        return wanted is not None and chosen(conclusion, expected.choices) == wanted
    known = number(expected.answer)
    if known is not None:
        return number(conclusion) == known
    word = words(expected.answer)
    if word in ("yes", "no"):
        return yes_no(conclusion) == word
    return words(_LEAD.sub("", conclusion.strip(), count=1)) == word or words(conclusion) == word


def chosen(conclusion: str, choices: tuple[str, ...]) -> int | None:
    """Index of the one option that a conclusion names, by letter or by text; None when none or several are."""
    letter = _letter(conclusion, len(choices))
    if letter is not None:
        return letter
    said = words(_LEAD.sub("", conclusion.strip(), count=1))
    exact = [place for place, choice in enumerate(choices) if words(choice) == said]
    if exact:
        return exact[0] if len(exact) == 1 else None
    named = [place for place, choice in enumerate(choices) if _contains(words(conclusion), words(choice))]
    return named[0] if len(named) == 1 else None


def number(text: str) -> Decimal | None:
    """The one number that a text names, in digits or as a word up to twelve; None when none or several are."""
    found = {Decimal(match.replace(",", "")) for match in _NUMBER.findall(text)}
    found |= {Decimal(_SPELLED.index(word)) for word in words(text).split() if word in _SPELLED}
    try:
        return found.pop() if len(found) == 1 else None
    except InvalidOperation:
        return None


def yes_no(text: str) -> str | None:
    """`yes` or `no` where a text begins with one of them or names just one; else None."""
    found = _YES_NO.findall(words(text))
    if not found:
        return None
    return str(found[0]) if words(text).startswith(found[0]) or len(set(found)) == 1 else None


def words(text: str) -> str:
    """Lower case, without articles, punctuation at the ends and doubled spaces: what two answers are compared by."""
    plain = unicodedata.normalize("NFKC", text).casefold().strip()
    plain = plain.strip(" \t\n.,;:!?\"'*`()[]")
    return " ".join(_ARTICLE.sub(" ", plain).split())


def _letter(conclusion: str, count: int) -> int | None:
    letters = "".join(chr(ord("A") + place) for place in range(count))
    rest = _LEAD.sub("", conclusion.strip().strip("*`\"'"), count=1)
    found = re.match(_LETTER.format(letters=letters) + r"(?:[.:,)\]*]|\s*$|\s+(?![a-z]))", rest)
    if found:
        return letters.index(found[1])
    named = set(re.findall(rf"\b(?:option|choice|answer)\s+(?:is\s+)?\(?([{letters}])\b", conclusion))
    return letters.index(named.pop()) if len(named) == 1 else None


def _index(answer: str, choices: tuple[str, ...]) -> int | None:
    exact = [place for place, choice in enumerate(choices) if words(choice) == words(answer)]
    letter = answer.strip().strip("().").upper()
    if len(letter) == 1 and 0 <= ord(letter) - ord("A") < len(choices):
        return ord(letter) - ord("A")
    return exact[0] if len(exact) == 1 else None


def _contains(text: str, part: str) -> bool:
    return bool(part) and re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) is not None
