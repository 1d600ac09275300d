"""Actions on all queries that a filter finds, carried out in slices by the orchestrator."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from storage.tables.base import Base, BigCount, BigKey


class BulkAction(Base):
    """What somebody wants done to the queries of a job that a filter finds, and how far that is."""

    __tablename__ = "bulk_actions"

    id: Mapped[BigKey]
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    action: Mapped[str]
    """`retry` or `cancel`."""
    filter: Mapped[str]
    """As it was written; read anew for every slice."""
    reason: Mapped[str]
    actor: Mapped[str]
    """A key's id, or `local`."""
    status: Mapped[str] = mapped_column(default="running")
    """running, done, stopped, failed."""
    counted: Mapped[int | None]
    """Queries that it would change when it began; None until that is counted."""
    line: Mapped[int] = mapped_column(default=0)
    """The last line looked at: the next slice goes on behind it."""
    changed: Mapped[BigCount]
    unchanged: Mapped[BigCount]
    """Queries that were found and had moved on by themselves before they could be changed."""
    note: Mapped[str | None]
    """Why it ended before all were looked at."""
    created_at: Mapped[float]
    ended_at: Mapped[float | None]

    __table_args__ = (
        Index(None, "job_id"),
        Index(
            "ix_bulk_actions_open",
            "status",
            postgresql_where=text("status = 'running'"),
            sqlite_where=text("status = 'running'"),
        ),
    )
