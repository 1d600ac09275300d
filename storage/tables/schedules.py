"""Named datasets, recurring runs over them, and one row for every planned firing."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index, UniqueConstraint, text
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
    managed_by: Mapped[str | None]
    """The definition file that it is kept in; None when people edit it here."""
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
    options: Mapped[dict[str, Any]]
    """Overlap, catch-up, caps, pause after failures, output prefix template, retention, alerts."""
    managed_by: Mapped[str | None]
    """The definition file that it is kept in; None when people edit it here."""
    owner: Mapped[str]
    """Who made it: a key's id, or `local`."""
    paused_at: Mapped[float | None]
    paused_by: Mapped[str | None]
    paused_reason: Mapped[str | None]
    cursor_at: Mapped[float]
    """Slots up to this time have been decided."""
    next_at: Mapped[float | None]
    """The next slot after the cursor; None when there is none any more."""
    failures: Mapped[int] = mapped_column(default=0)
    """Failed slots in a row."""
    runs: Mapped[int] = mapped_column(default=0)
    """Slots of the rule that were to run, counted against its maximum."""
    version: Mapped[int] = mapped_column(default=1)
    """Grows with every change of rule or options; slots keep the one they were decided under."""
    created_at: Mapped[float]
    updated_at: Mapped[float]

    __table_args__ = (UniqueConstraint("project_id", "name"), Index(None, "next_at"), Index(None, "dataset_id"))


class Slot(Base):
    """One planned firing. Unique on schedule, time and origin: two schedulers are harmless."""

    __tablename__ = "slots"

    id: Mapped[BigKey]
    schedule_id: Mapped[str] = mapped_column(ForeignKey("schedules.id", ondelete="CASCADE"))
    due_at: Mapped[float]
    """UTC time of the slot; a run by hand takes the moment it was asked for."""
    origin: Mapped[str]
    """`schedule`, `manual` or `backfill`."""
    attempt: Mapped[int] = mapped_column(default=1)
    """Above 1 for a backfill of a slot that was backfilled before."""
    status: Mapped[str]
    """pending, fired, skipped, missed, done, failed, cancelled."""
    reason: Mapped[str | None]
    """One word for how it ended or why it waits."""
    note: Mapped[str | None]
    """The sentence to it."""
    version: Mapped[int]
    """Of the schedule when this was decided."""
    overlap: Mapped[str]
    """The policy that this slot goes by, whatever the schedule says later."""
    priority: Mapped[str]
    """Of the job that it makes."""
    asked_by: Mapped[str | None]
    """Who asked for a run by hand or a backfill."""
    begins_at: Mapped[float]
    """When its run may begin: the slot's time and its jitter, later after a source that did not answer."""
    fired_at: Mapped[float | None]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    output_prefix: Mapped[str | None]
    """Where its results lie in the object store; None before they are written and after retention."""
    report: Mapped[dict[str, Any] | None]
    """new, changed, removed, reused, flips against the previous run."""
    removed_at: Mapped[float | None]
    """When its results and the rows of its job were removed, because its schedule keeps no more."""
    created_at: Mapped[float]
    ended_at: Mapped[float | None]

    __table_args__ = (
        UniqueConstraint("schedule_id", "due_at", "origin", "attempt"),
        Index("ix_slots_schedule", "schedule_id", "id"),
        Index(
            "ix_slots_open",
            "status",
            "begins_at",
            postgresql_where=text("status IN ('pending', 'fired')"),
            sqlite_where=text("status IN ('pending', 'fired')"),
        ),
        Index(
            "ix_slots_kept",
            "schedule_id",
            "id",
            postgresql_where=text("removed_at IS NULL AND job_id IS NOT NULL"),
            sqlite_where=text("removed_at IS NULL AND job_id IS NOT NULL"),
        ),
        Index(None, "job_id"),
    )


class StoredResult(Base):
    """The result of a row under a policy, model and code version: what an incremental run does not compute again."""

    __tablename__ = "stored_results"

    content_key: Mapped[str] = mapped_column(primary_key=True)
    query_id: Mapped[int] = mapped_column(RowId)
    job_id: Mapped[str]
    created_at: Mapped[float]

    __table_args__ = (Index(None, "job_id"),)
