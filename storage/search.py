"""The filter language of lists, such as `status:failed error:deadline stage:reasoning`, and what it asks of rows.

One parser for pages, API and command line. Words without a field name are searched where people look first:
the name of a job, the id or line of a query.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Text, and_, cast, or_

from reasoning.errors import BadInput, nearest
from storage.tables import Job, JobCounters, Query
from storage.transitions import JOB_ENDED, JOB_MOVES, QUERY_MOVES

MAX_FILTER = 500
"""Characters of a filter."""

_TERM = re.compile(r'\s*(?:(?P<name>[a-z_]+):)?(?:"(?P<quoted>[^"]*)"|(?P<plain>[^\s"]+))')
_JOBS = Job.__table__
_COUNTERS = JobCounters.__table__
_QUERIES = Query.__table__

JOB_FIELDS = ("status", "model", "name", "label", "priority", "source", "is")
QUERY_FIELDS = ("status", "stage", "error", "cause", "degraded", "id", "line", "is")
JOB_IS = ("active", "ended", "paused", "attention")
QUERY_IS = ("ended", "open", "retried", "loose_format")
STAGES = ("summary", "caption", "reasoning", "conclusion", "whole")
PRIORITIES = ("interactive", "batch", "background")


@dataclass(frozen=True, slots=True)
class Terms:
    """A filter in parts: values by field, several meaning any of them, and the words without a field."""

    text: str = ""
    """As it was written."""
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    words: tuple[str, ...] = ()

    def only(self, *names: str) -> bool:
        """Whether no other field than these is used, and no word."""
        return not self.words and set(self.fields) <= set(names)


def parse(text: str, known: Collection[str]) -> Terms:
    """Read a filter.

    Raises:
        BadInput: it is too long, has an unknown field (with the nearest one), or a quote that never ends.
    """
    if len(text) > MAX_FILTER:
        raise _bad(f"the filter is longer than {MAX_FILTER} characters; shorten it")
    fields: dict[str, tuple[str, ...]] = {}
    words: list[str] = []
    at = 0
    while at < len(text.rstrip()):
        match = _TERM.match(text, at)
        if match is None:
            raise _bad(f'the filter cannot be read from "{text[at : at + 20]}" on; close the quote or leave it out')
        at = match.end()
        name, quoted, plain = match["name"], match["quoted"], match["plain"]
        if name is None:
            words.append(quoted if quoted is not None else plain)
            continue
        if name not in known:
            raise _bad(f'there is no filter "{name}:".{nearest(name, known)} Known: {", ".join(known)}')
        values = (quoted,) if quoted is not None else tuple(part for part in plain.split(",") if part)
        fields[name] = (*fields.get(name, ()), *values)
    return Terms(text.strip(), fields, tuple(words))


def job_terms(text: str) -> Terms:
    """A filter of jobs; its values are checked. Raises BadInput."""
    terms = parse(text, JOB_FIELDS)
    _check(terms, "status", tuple(JOB_MOVES))
    _check(terms, "priority", PRIORITIES)
    _check(terms, "is", JOB_IS)
    return terms


def query_terms(text: str) -> Terms:
    """A filter of queries; its values are checked. Raises BadInput."""
    terms = parse(text, QUERY_FIELDS)
    _check(terms, "status", tuple(QUERY_MOVES))
    _check(terms, "stage", STAGES)
    _check(terms, "is", QUERY_IS)
    for value in terms.fields.get("line", ()):
        if not value.isdigit() or len(value) > 12:
            raise _bad(f'line:"{value}" is not a line number')
    return terms


def job_conditions(terms: Terms) -> list[ColumnElement[bool]]:
    """What the filter asks of jobs joined with their counters."""
    conditions = [_any(_JOBS.c[name], values) for name, values in terms.fields.items() if name in _PLAIN_JOB]
    conditions += [
        or_(*(_JOBS.c.name.contains(value, autoescape=True) for value in values))
        for name, values in terms.fields.items()
        if name == "name"
    ]
    conditions += [
        or_(_JOBS.c.name.contains(word, autoescape=True), _JOBS.c.id.startswith(word, autoescape=True))
        for word in terms.words
    ]
    for name, condition in (("is", _job_is), ("label", _label)):
        if name in terms.fields:
            conditions.append(or_(*(condition(value) for value in terms.fields[name])))
    return conditions


def query_conditions(terms: Terms) -> list[ColumnElement[bool]]:
    """What the filter asks of the queries of one job."""
    plain = {
        "status": _QUERIES.c.status,
        "stage": _QUERIES.c.stage,
        "degraded": _QUERIES.c.degraded_reason,
        "id": _QUERIES.c.custom_id,
        "error": _QUERIES.c.error["code"].as_string(),
        "cause": _QUERIES.c.error["cause"].as_string(),
    }
    conditions = [_any(plain[name], values) for name, values in terms.fields.items() if name in plain]
    if "line" in terms.fields:
        conditions.append(_QUERIES.c.line.in_([int(value) for value in terms.fields["line"]]))
    if "is" in terms.fields:
        conditions.append(or_(*(_query_is(value) for value in terms.fields["is"])))
    return conditions + [_word(word) for word in terms.words]


_PLAIN_JOB = ("status", "model", "priority", "source")


def _any(column: ColumnElement[str], values: tuple[str, ...]) -> ColumnElement[bool]:
    return column == values[0] if len(values) == 1 else column.in_(values)


def _job_is(value: str) -> ColumnElement[bool]:
    ended = _JOBS.c.status.in_(JOB_ENDED)
    return {
        "active": ~ended,
        "ended": ended,
        "paused": and_(~ended, _JOBS.c.paused_at.is_not(None)),
        "attention": needs_attention(),
    }[value]


def _label(label: str) -> ColumnElement[bool]:
    """A job whose metadata has the key, or with `key=value` this value under it."""
    key, equals, value = label.partition("=")
    found = cast(_JOBS.c.attributes[key].as_string(), Text)
    return found == value if equals else found.is_not(None)


def needs_attention() -> ColumnElement[bool]:
    """A job that somebody should look at: it failed, lost queries, was paused or ran out of time."""
    ended = _JOBS.c.status.in_(JOB_ENDED)
    return or_(
        _JOBS.c.status.in_(("failed", "expired")),
        _COUNTERS.c.failed > 0,
        _COUNTERS.c.expired > 0,
        and_(~ended, _JOBS.c.paused_at.is_not(None)),
    )


def _query_is(value: str) -> ColumnElement[bool]:
    is_open = _QUERIES.c.status.in_(("waiting", "running"))
    return {
        "open": is_open,
        "ended": ~is_open,
        "retried": _QUERIES.c.retries > 0,
        "loose_format": _QUERIES.c.format_ok.is_(False),
    }[value]


def _word(word: str) -> ColumnElement[bool]:
    same_id = _QUERIES.c.custom_id == word
    return or_(same_id, _QUERIES.c.line == int(word)) if word.isdigit() and len(word) <= 12 else same_id


def _check(terms: Terms, name: str, known: Collection[str]) -> None:
    for value in terms.fields.get(name, ()):
        if value not in known:
            raise _bad(f'there is no {name} "{value}".{nearest(value, known)} Known: {", ".join(known)}')


def _bad(message: str) -> BadInput:
    return BadInput(message, code="invalid_filter", field="filter")
