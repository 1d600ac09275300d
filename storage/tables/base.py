"""The declarative base and the column types that differ between Postgres and SQLite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from sqlalchemy import JSON, BigInteger, Double, Integer, MetaData, Table, Text
from sqlalchemy.orm import DeclarativeBase, mapped_column

RowId = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite numbers rows by itself only for a column declared exactly INTEGER."""


class Base(DeclarativeBase):
    """Base of all tables; constraint names are fixed so that migrations can name them on both databases."""

    if TYPE_CHECKING:
        # SQLAlchemy types it as any FROM clause; ours are all tables, and statements on them skip the ORM.
        __table__: ClassVar[Table]

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as a class attribute
        str: Text(),
        float: Double(),
        dict[str, Any]: JSON(none_as_null=True),
        list[Any]: JSON(none_as_null=True),
    }


BigKey = Annotated[int, mapped_column(RowId, primary_key=True, autoincrement=True)]
"""Integer primary key that the database numbers."""

BigCount = Annotated[int, mapped_column(BigInteger(), default=0, server_default="0")]
"""A count that may pass two thousand million."""
