"""Webhook deliveries: written with the state they tell of, sent later."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Index
from sqlalchemy.orm import Mapped, mapped_column

from storage.tables.base import Base, BigKey


class Delivery(Base):
    """One event for one address. A failed attempt moves `next_at`; a success or giving up sets `ended_at`."""

    __tablename__ = "deliveries"

    id: Mapped[BigKey]
    event_id: Mapped[str] = mapped_column(unique=True)
    project_id: Mapped[str]
    subject: Mapped[str]
    type: Mapped[str]
    url: Mapped[str]
    secret: Mapped[str | None]
    body: Mapped[dict[str, Any]]
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[float | None]
    last_error: Mapped[str | None]
    created_at: Mapped[float]
    ended_at: Mapped[float | None]
    delivered: Mapped[bool] = mapped_column(default=False)

    __table_args__ = (Index(None, "next_at"), Index(None, "subject"))
