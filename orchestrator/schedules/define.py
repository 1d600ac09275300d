"""Making and changing datasets and schedules, for the API, the pages, the command line and definition files alike.

A changed rule takes effect from now: what was due under the old one is decided first, and slots that were
decided keep the version and policy that they were decided under.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from sqlalchemy import Connection

from orchestrator.datasets.spec import PARTS
from orchestrator.schedules.clock import decide_all
from orchestrator.schedules.due import Plan, next_due
from orchestrator.schedules.ending import note_act
from orchestrator.schedules.options import Options
from orchestrator.schedules.records import plan_of
from orchestrator.schedules.rule import Rule
from orchestrator.schedules.sources import SourceSettings
from reasoning.errors import BadInput, nearest
from reasoning.policy import Policy
from reasoning.strategies import strategy_named
from storage import access, datasets, schedules

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
MAX_QUESTION = 20_000
MAX_IDENTITY = 10
HIDDEN = "(set)"
"""Stands for a secret that is there and not shown."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field that differs."""

    field: str
    before: Any
    after: Any

    def to_json(self) -> dict[str, Any]:
        return {"field": self.field, "before": self.before, "after": self.after}


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetDefinition:
    """A dataset as people write it. Field names are the JSON keys."""

    name: str
    source: dict[str, Any]
    columns: dict[str, Any] = field(default_factory=dict)
    """Column by part; parts that are not named are guessed."""
    question: str | None = None
    """One question for every row, in which `{column}` stands for the row's value."""
    policy: dict[str, Any] = field(default_factory=dict)
    model: str = ""
    """Empty means the model of the server."""
    identity: list[str] = field(default_factory=list)
    """Columns that tell rows apart."""

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Self:
        """Read decoded JSON. Raises BadInput."""
        _check_names(data, ("name", "source", "columns", "question", "policy", "model", "identity"))
        definition = cls(**{"name": "", "source": {}, **{k: v for k, v in data.items() if v is not None}})
        definition._check()
        return definition

    def _check(self) -> None:
        check_name(self.name)
        _check_type("source", self.source, dict)
        _check_type("columns", self.columns, dict)
        _check_type("policy", self.policy, dict)
        _check_type("model", self.model, str)
        SourceSettings.from_mapping(self.source)
        for part in self.columns:
            if part not in PARTS:
                hint = nearest(str(part), PARTS)
                raise BadInput(
                    f'there is no part "{part}".{hint} Columns can be: {", ".join(PARTS)}.',
                    code="unknown_field",
                    field="columns",
                )
        strategy_named(Policy().with_overrides(self.policy).strategy)
        if self.question is not None and not (isinstance(self.question, str) and len(self.question) <= MAX_QUESTION):
            raise BadInput(
                f"question must be text of {MAX_QUESTION} characters at most.", code="invalid_type", field="question"
            )
        names = self.identity
        if not isinstance(names, list) or len(names) > MAX_IDENTITY or not all(isinstance(name, str) for name in names):
            raise BadInput(
                f"identity must be a list of {MAX_IDENTITY} column names at most.",
                code="invalid_type",
                field="identity",
            )

    def columns_of_row(self) -> dict[str, Any]:
        """The columns of the dataset's row that this sets."""
        mapping = {"columns": self.columns} | ({"question": self.question} if self.question else {})
        source = SourceSettings.from_mapping(self.source).to_mapping()
        return {
            "source": source,
            "mapping": mapping,
            "policy": self.policy,
            "model": self.model,
            "identity": self.identity,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleDefinition:
    """A schedule as people write it. Field names are the JSON keys."""

    name: str
    dataset: str
    rule: Rule
    options: Options = field(default_factory=Options)
    paused: bool = False
    """Whether a new schedule starts paused."""

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Self:
        """Read decoded JSON. Raises BadInput."""
        _check_names(data, ("name", "dataset", "rule", "options", "paused"))
        check_name(data.get("name"))
        for name in ("rule", "options"):
            _check_type(name, data.get(name) or {}, dict)
        _check_type("paused", data.get("paused", False), bool)
        rule = Rule.from_mapping(data.get("rule") or {})
        options = Options.from_mapping(data.get("options") or {})
        return cls(
            name=data["name"],
            dataset=str(data.get("dataset", "")),
            rule=rule,
            options=options,
            paused=data.get("paused", False),
        )


@dataclass(frozen=True, slots=True)
class Author:
    """On whose behalf something is defined."""

    project_id: str
    actor: str
    managed_by: str | None = None
    """The definition file that speaks; None for people."""
    only_shows: bool = False
    """Whether all is undone afterwards: differences from what a file keeps are told then, and not refused."""

    def keeper_of(self, row: Any) -> str | None:
        """The file that keeps an entry after this author has written it."""
        return self.managed_by or (None if row is None else row.managed_by)


def put_dataset(
    conn: Connection, definition: DatasetDefinition, author: Author, now: float, new_id: Callable[[str], str]
) -> tuple[Any, list[Change]]:
    """Make a dataset, or change the one of that name; its row and what differs. Raises BadInput."""
    row = datasets.named(conn, author.project_id, definition.name)
    wanted = definition.columns_of_row() | {"managed_by": author.keeper_of(row)}
    changes = [
        Change(name, getattr(row, name, None), value) for name, value in wanted.items() if _differs(row, name, value)
    ]
    if row is None:
        values = {"id": new_id("dataset"), "project_id": author.project_id, "name": definition.name, **wanted}
        datasets.create(conn, {**values, "created_at": now, "updated_at": now})
    elif changes:
        _refuse_managed(row, author, "dataset")
        datasets.change(conn, row.id, wanted, now)
    found = datasets.named(conn, author.project_id, definition.name)
    if changes and found is not None:
        note_changes(conn, author, "dataset.put", found.id, now, changes)
    return found, changes


def put_schedule(
    conn: Connection, definition: ScheduleDefinition, author: Author, now: float, new_id: Callable[[str], str]
) -> tuple[Any, list[Change]]:
    """Make a schedule, or change the one of that name; its row and what differs.

    Raises:
        BadInput: no such dataset, a rule under which nothing would ever run, or one that a file keeps.
    """
    dataset = datasets.named(conn, author.project_id, definition.dataset)
    if dataset is None:
        raise BadInput(
            f'there is no dataset "{definition.dataset}"; create it first', code="not_found", field="dataset"
        )
    plan = Plan(rule=definition.rule, options=definition.options, runs_left=definition.rule.max_runs)
    if next_due(plan, now) is None:
        raise BadInput(
            "under this rule nothing would run within the next five years; check the days and the end",
            code="never_due",
            field="rule",
        )
    row = schedules.named(conn, author.project_id, definition.name)
    wanted = {
        "dataset_id": dataset.id,
        "rule": definition.rule.to_mapping(),
        "options": _with_secret(definition.options.to_mapping(), row),
        "managed_by": author.keeper_of(row),
    }
    changes = [
        Change(name, getattr(row, name, None), value) for name, value in wanted.items() if _differs(row, name, value)
    ]
    if row is None:
        _create(conn, definition, author, wanted, now, new_id)
    elif changes:
        _refuse_managed(row, author, "schedule")
        _change(conn, row, wanted, now)
    found = schedules.named(conn, author.project_id, definition.name)
    if changes and found is not None:
        note_changes(conn, author, "schedule.put", found.id, now, changes)
    return found, changes


def _create(
    conn: Connection,
    definition: ScheduleDefinition,
    author: Author,
    wanted: dict[str, Any],
    now: float,
    new_id: Callable[[str], str],
) -> None:
    paused = {"paused_at": now, "paused_by": author.actor, "paused_reason": "it was made paused"}
    values = {
        "id": new_id("schedule"),
        "project_id": author.project_id,
        "name": definition.name,
        "owner": author.actor,
        "cursor_at": now,
        "next_at": next_due(Plan(rule=definition.rule, options=definition.options), now),
        "created_at": now,
        "updated_at": now,
        **wanted,
        **(paused if definition.paused else {}),
    }
    schedules.create(conn, values)


def _change(conn: Connection, row: Any, wanted: dict[str, Any], now: float) -> None:
    locked = schedules.lock(conn, [row.id])[0]
    decided = decide_all(conn, locked, now)
    schedules.change(conn, row.id, {**wanted, "version": decided.version + 1}, now)
    changed = schedules.get(conn, row.id)
    start = max(now, decided.cursor_at)
    schedules.change(conn, row.id, {"cursor_at": start, "next_at": next_due(plan_of(changed), start)}, now)


def shown_changes(changes: Iterable[Change]) -> list[Change]:
    """Differences as people may see them, without secrets: of a part that was there before, only what differs in it."""
    return [shown for change in changes for shown in _shown(change)]


def _shown(change: Change) -> Iterator[Change]:
    before, after = change.before, change.after
    if change.field == "options":
        before, after = (None if value is None else without_secret(value) for value in (before, after))
    if not isinstance(before, dict) or not isinstance(after, dict):
        yield Change(change.field, before, after)
        return
    differing = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    for name in differing:
        yield Change(f"{change.field}.{name}", before.get(name), after.get(name))
    if not differing:  # a secret took the place of another
        yield Change(change.field, HIDDEN, HIDDEN)


def without_secret(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as people may see them."""
    alerts = options["alerts"]
    return {**options, "alerts": {**alerts, "secret": HIDDEN if alerts["secret"] else ""}}


def _with_secret(options: dict[str, Any], row: Any) -> dict[str, Any]:
    """The options, with the secret that is stored where somebody sent back what they were shown."""
    if options["alerts"]["secret"] == HIDDEN:
        options["alerts"]["secret"] = row.options["alerts"]["secret"] if row is not None else ""
    return options


def check_name(name: Any) -> None:
    """Names stand in addresses, keys and file names. Raises BadInput."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise BadInput(
            f"the name {name!r} is refused; use 1 to 64 lower-case letters, digits, dots, dashes and underscores.",
            code="invalid_name",
            field="name",
        )


def _differs(row: Any, name: str, value: Any) -> bool:
    return row is None or getattr(row, name) != value


def _refuse_managed(row: Any, author: Author, kind: str) -> None:
    if row.managed_by is not None and author.managed_by is None and not author.only_shows:
        raise BadInput(
            f'the {kind} "{row.name}" is kept in the file {row.managed_by}, which would overwrite a change made here; '
            "change the file",
            code="managed_by_file",
            field="name",
        )


def refuse_managed(row: Any, kind: str) -> None:
    """Refuse a change by a person of what a definition file keeps. Raises BadInput (`managed_by_file`)."""
    _refuse_managed(row, Author(row.project_id, ""), kind)


def note_changes(
    conn: Connection, author: Author, action: str, subject: str, now: float, changes: list[Change]
) -> None:
    """Write differences into the audit log, without secrets."""
    access.note(
        conn,
        project_id=author.project_id,
        actor=author.actor,
        action=action,
        subject=subject,
        now=now,
        details={"changes": [change.to_json() for change in shown_changes(changes)]},
    )


def _check_names(data: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in data:
        if name not in known:
            raise BadInput(f'unknown field "{name}".{nearest(str(name), known)}', code="unknown_field", field=str(name))


def _check_type(name: str, value: Any, wanted: type) -> None:
    if not isinstance(value, wanted):
        words = {dict: "an object", str: "text", bool: "true or false"}
        raise BadInput(f"{name} must be {words[wanted]}.", code="invalid_type", field=name)


__all__ = [
    "Author",
    "Change",
    "DatasetDefinition",
    "ScheduleDefinition",
    "check_name",
    "note_act",
    "note_changes",
    "put_dataset",
    "put_schedule",
    "refuse_managed",
]
