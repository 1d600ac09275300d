"""Run by Alembic: hands it the connection (or, for a script, the dialect) that `storage.schema` chose."""

from __future__ import annotations

from alembic import context

from storage.tables import Base


def _run() -> None:
    connection = context.config.attributes.get("connection")
    options = {"connection": connection} if connection is not None else context.config.attributes["offline"]
    context.configure(
        **options,
        target_metadata=Base.metadata,
        render_as_batch=True,  # SQLite changes a table by copying it
        transactional_ddl=True,  # `storage.schema` holds one transaction around everything, on SQLite too
        compare_type=True,
        compare_server_default=True,
    )
    context.run_migrations()


_run()
