"""Files that users name and blobs that are named by their content."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from storage.tables.base import Base


class File(Base):
    """An uploaded or written file; its bytes lie in the object store under `object_key`."""

    __tablename__ = "files"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    purpose: Mapped[str]
    """`batch` (input), `batch_output`, `dataset` (rows of a scheduled run; its schedule's retention removes them)."""
    filename: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger())
    sha256: Mapped[str]
    object_key: Mapped[str]
    status: Mapped[str] = mapped_column(default="processed")
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    deleted_at: Mapped[float | None]

    __table_args__ = (Index(None, "project_id", "created_at"), Index(None, "project_id", "sha256"))


class Blob(Base):
    """An image of a project, stored once under its content hash, however many lines share it.

    The project has no foreign key: thousands of rows are noted a second.
    """

    __tablename__ = "blobs"

    sha256: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger())
    media_type: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    bundle: Mapped[str | None]
    """The object that it shares with others; None when it has one of its own."""
    bundle_start: Mapped[int | None] = mapped_column(BigInteger())
    """Where its bytes begin there."""
    created_at: Mapped[float]
