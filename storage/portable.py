"""SQL that Postgres and SQLite spell differently, so that no other module asks which one it speaks to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
from sqlalchemy import (
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Dialect,
    Function,
    String,
    Table,
    Text,
    TypeDecorator,
    bindparam,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine


def insert_ignore(target: Table, conn: Connection) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that leaves rows alone whose primary or unique key is there already.

    Add `.returning(...)` to learn which rows were new.
    """
    return insert_into(target, conn).on_conflict_do_nothing()


def insert_into(target: Table, conn: Connection) -> postgresql.Insert | sqlite.Insert:
    """An INSERT that can be told what to do with a row that is there already: both databases spell that alike."""
    return postgresql.insert(target) if conn.dialect.name == "postgresql" else sqlite.insert(target)


class _Ids(TypeDecorator[Any]):
    """A list of ids as one parameter: an array on Postgres, JSON text on SQLite."""

    impl = Text
    cache_ok = True

    def __init__(self, item: type[BigInteger | Text]) -> None:
        super().__init__()
        self.item = item

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.ARRAY(self.item))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return value if dialect.name == "postgresql" else orjson.dumps(value).decode()


class _AnyOf(FunctionElement[bool]):
    name = "any_of"
    type = Boolean()
    inherit_cache = True


def any_of(column: ColumnElement[Any], ids: Iterable[int] | Iterable[str]) -> ColumnElement[bool]:
    """`column IN (ids)` with one parameter however many ids there are.

    The statement text stays the same, so it is compiled and prepared once, and neither database's limit on
    the number of parameters is met.
    """
    item: type[BigInteger | Text] = Text if isinstance(column.type, String) else BigInteger
    return _AnyOf(column, bindparam(None, list(ids), type_=_Ids(item)))


@compiles(_AnyOf, "postgresql")
def _any_of_postgresql(element: Function[bool], compiler: SQLCompiler, **kw: Any) -> str:
    column, ids = element.clauses
    return f"{compiler.process(column, **kw)} = ANY ({compiler.process(ids, **kw)})"


@compiles(_AnyOf)
def _any_of_sqlite(element: Function[bool], compiler: SQLCompiler, **kw: Any) -> str:
    column, ids = element.clauses
    return f"{compiler.process(column, **kw)} IN (SELECT value FROM json_each({compiler.process(ids, **kw)}))"  # noqa: S608 - made of compiled parts
