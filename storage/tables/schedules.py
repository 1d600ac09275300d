"""Named datasets, recurring runs over them, and one row for every planned firing."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from storage.tables.base import Base, BigKey, RowId


class Dataset(Base):
    """A named source of rows with its column mapping and row identity."""

    __tablename__ = "datasets"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    source: Mapped[dict[str, Any]]
    """kind (path, prefix, parquet, hf, tsv, sql) and its address."""
    mapping: Mapped[dict[str, Any]]
    policy: Mapped[dict[str, Any]]
    model: Mapped[str]
    identity: Mapped[list[Any]]
    """Columns that tell rows apart."""
    created_at: Mapped[float]
    updated_at: Mapped[float]

    __table_args__ = (UniqueConstraint("project_id", "name"),)


class Schedule(Base):
    """A recurring dataset run."""

    __tablename__ = "schedules"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id"))
    rule: Mapped[dict[str, Any]]
    """cron, interval or calendar, with time zone, start, end, jitter, maximum runs."""
    overlap: Mapped[str]
    catch_up: Mapped[str]
    options: Mapped[dict[str, Any]]
    """Catch-up window, caps, pause after failures, output prefix template, retention, alerts."""
    paused_at: Mapped[float | None]
    paused_reason: Mapped[str | None]
    cursor_at: Mapped[float]
    """Slots up to this time have been decided."""
    failures: Mapped[int] = mapped_column(default=0)
    """Failed slots in a row."""
    runs: Mapped[int] = mapped_column(default=0)
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[float]
    updated_at: Mapped[float]

    __table_args__ = (UniqueConstraint("project_id", "name"), Index(None, "cursor_at"))


class Slot(Base):
    """One planned firing. Unique on schedule and time: two schedulers are harmless."""

    __tablename__ = "slots"

    id: Mapped[BigKey]
    schedule_id: Mapped[str] = mapped_column(ForeignKey("schedules.id", ondelete="CASCADE"))
    due_at: Mapped[float]
    """UTC time of the slot; a run by hand takes the moment it was asked for."""
    origin: Mapped[str]
    """`schedule`, `manual` or `backfill`."""
    status: Mapped[str]
    """pending, fired, skipped, missed, done, failed, cancelled."""
    reason: Mapped[str | None]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    report: Mapped[dict[str, Any] | None]
    """new, changed, removed, reused, flips against the previous run."""
    created_at: Mapped[float]
    ended_at: Mapped[float | None]

    __table_args__ = (UniqueConstraint("schedule_id", "due_at", "origin"), Index(None, "status", "due_at"))


class StoredResult(Base):
    """The result of a row under a policy, model and code version: what an incremental run does not compute again."""

    __tablename__ = "stored_results"

    content_key: Mapped[str] = mapped_column(primary_key=True)
    query_id: Mapped[int] = mapped_column(RowId)
    job_id: Mapped[str]
    created_at: Mapped[float]
