"""A file of datasets and schedules, applied as a whole: what it names is made or changed, and the differences told.

```yaml
version: 1
datasets:
  scenes: {source: {kind: path, address: /data/scenes}, question: "How many red cubes are there?"}
schedules:
  nightly: {dataset: scenes, rule: {kind: cron, cron: "0 3 * * *", zone: Europe/Berlin}}
```
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import Connection

from orchestrator.schedules.define import (
    Author,
    Change,
    DatasetDefinition,
    ScheduleDefinition,
    note_changes,
    put_dataset,
    put_schedule,
    shown_changes,
)
from reasoning.errors import BadInput, nearest
from storage import datasets, schedules

VERSION = 1
MAX_BYTES = 2**20
MAX_ENTRIES = 10_000
_PARTS = ("version", "datasets", "schedules")


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of one entry of a file."""

    kind: str
    name: str
    outcome: str
    """created, changed, unchanged, or released: kept in the file until now, which names it no more."""
    changes: tuple[Change, ...]
    kept_in: str | None
    """The file in which alone it can be changed."""

    def to_json(self) -> dict[str, Any]:
        changes = [change.to_json() for change in self.changes]
        names = {"kind": self.kind, "name": self.name, "outcome": self.outcome}
        return {**names, "kept_in": self.kept_in, "changes": changes}


def read_definitions(path: Path) -> Mapping[str, Any]:
    """The decoded file. Raises BadInput."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}", code="unreadable_file") from None
    if len(text) > MAX_BYTES:
        raise BadInput(f"{path} is larger than {MAX_BYTES} bytes", code="too_large")
    return parse_definitions(text)


def parse_definitions(text: bytes) -> Mapping[str, Any]:
    """The decoded text of a file. Raises BadInput."""
    try:
        data = yaml.load(text, Loader=_Plain)  # noqa: S506 - a safe loader without aliases
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"the definitions are no YAML: {error}".replace("\n", " "), code="invalid_yaml") from None
    return checked_definitions(data)


def checked_definitions(data: Any) -> Mapping[str, Any]:
    """The parts of a definition file, of a version that is known here. Raises BadInput."""
    if not isinstance(data, Mapping):
        raise BadInput("the definitions must be an object with version, datasets and schedules", code="invalid_yaml")
    for name in data:
        if name not in _PARTS:
            raise BadInput(f'unknown part "{name}".{nearest(str(name), _PARTS)}', code="unknown_field", field=str(name))
    if data.get("version") != VERSION:
        raise BadInput(
            f"version is {data.get('version')!r}; write version: {VERSION}", code="invalid_version", field="version"
        )
    for part in ("datasets", "schedules"):
        entries = {} if data.get(part) is None else data[part]
        if not isinstance(entries, Mapping) or not all(isinstance(entry, Mapping) for entry in entries.values()):
            raise BadInput(f"{part} must be objects by name", code="invalid_type", field=part)
        if len(entries) > MAX_ENTRIES:
            raise BadInput(f"{part} has more than {MAX_ENTRIES} entries", code="too_large", field=part)
    return data


def apply_definitions(
    conn: Connection, data: Mapping[str, Any], author: Author, now: float, new_id: Callable[[str], str]
) -> list[Applied]:
    """Make and change what the file names, in one transaction of the caller. What it does not name stays.

    What was kept in the same file and is not named any more is people's to change from now on.

    Raises:
        BadInput: an entry cannot be used; the field begins with its part and name.
    """
    done = _released(conn, data, author, now)
    for name, entry in (data.get("datasets") or {}).items():
        with _telling(f"datasets.{name}"):
            definition = DatasetDefinition.from_mapping({**entry, "name": name})
            done.append(_applied("dataset", name, *put_dataset(conn, definition, author, now, new_id), now))
    for name, entry in (data.get("schedules") or {}).items():
        with _telling(f"schedules.{name}"):
            schedule = ScheduleDefinition.from_mapping({**entry, "name": name})
            done.append(_applied("schedule", name, *put_schedule(conn, schedule, author, now, new_id), now))
    return done


def _applied(kind: str, name: str, row: Any, changes: list[Change], now: float) -> Applied:
    created = row.created_at == now and bool(changes) and all(change.before is None for change in changes)
    outcome = "created" if created else "changed" if changes else "unchanged"
    return Applied(kind, name, outcome, tuple(shown_changes(changes)), row.managed_by)


def _released(conn: Connection, data: Mapping[str, Any], author: Author, now: float) -> list[Applied]:
    done: list[Applied] = []
    if author.managed_by is None:
        return done
    for kind, part, table in (("dataset", "datasets", datasets), ("schedule", "schedules", schedules)):
        for row in table.kept_in(conn, author.project_id, author.managed_by):
            if row.name not in (data.get(part) or {}):
                table.change(conn, row.id, {"managed_by": None}, now)
                changes = [Change("managed_by", author.managed_by, None)]
                note_changes(conn, author, f"{kind}.put", row.id, now, changes)
                done.append(Applied(kind, row.name, "released", tuple(changes), None))
    return done


class _telling:  # noqa: N801 - used as a verb
    """Puts the place in the file before the field of an error."""

    def __init__(self, place: str) -> None:
        self._place = place

    def __enter__(self) -> None:
        return

    def __exit__(self, _kind: object, error: BaseException | None, _at: object) -> None:
        if isinstance(error, BadInput):
            field = f"{self._place}.{error.field}" if error.field else self._place
            raise BadInput(f"{self._place}: {error.message}", code=error.code, field=field) from error


class _Plain(yaml.SafeLoader):
    """YAML without aliases: a few of them make a huge document out of a small file."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("aliases are not taken; write the entry out")
        return super().compose_node(parent, index)
