"""Who may do what: projects, API keys, and the record of what was done."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from storage.tables.base import Base, BigKey


class Project(Base):
    """Owns jobs, files and keys; `default` exists from the first migration on."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    limits: Mapped[dict[str, Any] | None]
    """queries_in_flight, queued_tokens, storage_bytes, requests_per_minute; absent means unlimited."""
    created_at: Mapped[float]


class RequestRate(Base):
    """How far ahead a project with a limit on requests has used it; `storage.rates` alone writes here."""

    __tablename__ = "request_rates"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    full_at: Mapped[float]
    """When the project may send a whole minute's requests at once again."""


class ApiKey(Base):
    """A bearer token, stored as a hash and shown once."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    role: Mapped[str]
    """viewer, operator or admin."""
    token_hash: Mapped[str] = mapped_column(unique=True)
    hint: Mapped[str]
    """The first characters, so that people can tell keys apart."""
    created_at: Mapped[float]
    last_used_at: Mapped[float | None]
    revoked_at: Mapped[float | None]


class AuditEntry(Base):
    """One action of a person or program: who, what, on which things, why."""

    __tablename__ = "audit"

    id: Mapped[BigKey]
    project_id: Mapped[str | None]
    at: Mapped[float]
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    reason: Mapped[str | None]
    details: Mapped[dict[str, Any] | None]

    __table_args__ = (Index(None, "at"), Index(None, "subject"))
