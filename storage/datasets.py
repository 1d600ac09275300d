"""Rows of named datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from storage.portable import any_of
from storage.tables import Dataset, Schedule

_DATASETS = Dataset.__table__
_SCHEDULES = Schedule.__table__


def create(conn: Connection, values: Mapping[str, Any]) -> None:
    """Insert a dataset; `values` are its columns. Raises IntegrityError when the project has the name already."""
    conn.execute(insert(_DATASETS).values(values))


def get(conn: Connection, dataset_id: str) -> Row[Any] | None:
    """One dataset by id."""
    return conn.execute(select(_DATASETS).where(_DATASETS.c.id == dataset_id)).one_or_none()


def named(conn: Connection, project_id: str, name: str) -> Row[Any] | None:
    """One dataset of a project by name."""
    where = (_DATASETS.c.project_id == project_id, _DATASETS.c.name == name)
    return conn.execute(select(_DATASETS).where(*where)).one_or_none()


def list_page(conn: Connection, project_id: str, *, after: str | None, limit: int) -> Sequence[Row[Any]]:
    """Datasets of a project by name, `limit + 1` at most, after the name `after`."""
    statement = select(_DATASETS).where(_DATASETS.c.project_id == project_id)
    if after is not None:
        statement = statement.where(_DATASETS.c.name > after)
    return conn.execute(statement.order_by(_DATASETS.c.name).limit(limit + 1)).all()


def names(conn: Connection, dataset_ids: Sequence[str]) -> dict[str, str]:
    """Names by id."""
    statement = select(_DATASETS.c.id, _DATASETS.c.name).where(any_of(_DATASETS.c.id, dataset_ids))
    return {row.id: row.name for row in conn.execute(statement)}


def kept_in(conn: Connection, project_id: str, file: str) -> Sequence[Row[Any]]:
    """Datasets of a project that a definition file keeps, by name."""
    where = (_DATASETS.c.project_id == project_id, _DATASETS.c.managed_by == file)
    return conn.execute(select(_DATASETS).where(*where).order_by(_DATASETS.c.name)).all()


def change(conn: Connection, dataset_id: str, values: Mapping[str, Any], now: float) -> None:
    """Set columns of a dataset."""
    conn.execute(update(_DATASETS).where(_DATASETS.c.id == dataset_id).values(**values, updated_at=now))


def used_by(conn: Connection, dataset_id: str) -> list[str]:
    """Names of the schedules that run the dataset."""
    statement = select(_SCHEDULES.c.name).where(_SCHEDULES.c.dataset_id == dataset_id).order_by(_SCHEDULES.c.name)
    return list(conn.scalars(statement))


def remove(conn: Connection, dataset_id: str) -> None:
    """Delete a dataset that no schedule uses."""
    conn.execute(delete(_DATASETS).where(_DATASETS.c.id == dataset_id))
