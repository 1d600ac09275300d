"""retention of scheduled runs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("rows_kept", sa.Integer(), nullable=True))
        batch_op.create_index(batch_op.f("ix_jobs_input_file_id"), ["input_file_id"], unique=False)
        batch_op.create_index(
            "ix_jobs_rows_kept",
            ["id"],
            unique=False,
            postgresql_where=sa.text("rows_kept > 0"),
            sqlite_where=sa.text("rows_kept > 0"),
        )

    with op.batch_alter_table("slots", schema=None) as batch_op:
        batch_op.add_column(sa.Column("removed_at", sa.Double(), nullable=True))
        batch_op.create_index(
            "ix_slots_kept",
            ["schedule_id", "id"],
            unique=False,
            postgresql_where=sa.text("removed_at IS NULL AND job_id IS NOT NULL"),
            sqlite_where=sa.text("removed_at IS NULL AND job_id IS NOT NULL"),
        )


def downgrade() -> None:
    with op.batch_alter_table("slots", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_slots_kept",
            postgresql_where=sa.text("removed_at IS NULL AND job_id IS NOT NULL"),
            sqlite_where=sa.text("removed_at IS NULL AND job_id IS NOT NULL"),
        )
        batch_op.drop_column("removed_at")

    with op.batch_alter_table("jobs", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_jobs_rows_kept", postgresql_where=sa.text("rows_kept > 0"), sqlite_where=sa.text("rows_kept > 0")
        )
        batch_op.drop_index(batch_op.f("ix_jobs_input_file_id"))
        batch_op.drop_column("rows_kept")
