"""Workers that say they live, queues that people pause, and the roll-ups behind the charts."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from storage.tables.base import Base, BigCount


class Worker(Base):
    """Heartbeat row of a worker process, written by its side thread."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    """`name@host:pid:start`: unique to one life of the process."""
    model: Mapped[str]
    engine: Mapped[dict[str, Any]]
    """`EngineInfo` as JSON."""
    slots: Mapped[int]
    state: Mapped[str] = mapped_column(default="ready")
    """starting, ready, draining, stopped."""
    wanted: Mapped[str] = mapped_column(default="run")
    """`run` or `drain`: written by people, obeyed by the worker."""
    in_hand: Mapped[list[Any] | None]
    """Calls being worked on: id, query id, stage, since."""
    stats: Mapped[dict[str, Any] | None]
    """Memory, batch fill, engine counters."""
    version: Mapped[str]
    started_at: Mapped[float]
    beat_at: Mapped[float]
    stopped_at: Mapped[float | None]

    __table_args__ = (Index(None, "beat_at"),)


class QueueControl(Base):
    """A model's queue that somebody paused."""

    __tablename__ = "queue_controls"

    model: Mapped[str] = mapped_column(primary_key=True)
    paused_at: Mapped[float | None]
    reason: Mapped[str | None]
    actor: Mapped[str | None]


class Duty(Base):
    """A duty that one orchestrator at a time holds, by a lease: ingest, dispatch, finalize, reconcile, schedules."""

    __tablename__ = "duties"

    name: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    until: Mapped[float]


class Rollup(Base):
    """Sums by minute and by hour, so that charts never count rows."""

    __tablename__ = "rollups"

    bucket: Mapped[float] = mapped_column(primary_key=True)
    """Start of the bucket, seconds since the epoch."""
    width_s: Mapped[int] = mapped_column(primary_key=True)
    """60 or 3600."""
    model: Mapped[str] = mapped_column(primary_key=True)
    done: Mapped[BigCount]
    failed: Mapped[BigCount]
    calls: Mapped[BigCount]
    tokens: Mapped[BigCount]
    waiting_ms: Mapped[list[Any] | None]
    """Histogram of waiting times: counts by power-of-two bucket of milliseconds."""
    running_ms: Mapped[list[Any] | None]
    """Histogram of running times, likewise."""
