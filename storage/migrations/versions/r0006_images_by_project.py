"""images by project, and in bundles."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Which project sent an image was not noted before: those that are there stay open to all."""
    op.execute("CREATE TEMPORARY TABLE blobs_before AS SELECT * FROM blobs")
    op.drop_table("blobs")
    op.create_table(
        "blobs",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("bundle", sa.Text(), nullable=True),
        sa.Column("bundle_start", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", "project_id", name=op.f("pk_blobs")),
    )
    op.execute(
        "INSERT INTO blobs (sha256, project_id, bytes, media_type, width, height, created_at) "
        "SELECT b.sha256, projects.id, b.bytes, b.media_type, b.width, b.height, b.created_at "
        "FROM blobs_before b CROSS JOIN projects"
    )
    op.execute("DROP TABLE blobs_before")


def downgrade() -> None:
    """Images in bundles are lost to the former code, which knows only objects of their own."""
    op.execute("CREATE TEMPORARY TABLE blobs_before AS SELECT * FROM blobs")
    op.drop_table("blobs")
    op.create_table(
        "blobs",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_blobs")),
    )
    op.execute(
        "INSERT INTO blobs (sha256, bytes, media_type, width, height, created_at) "
        "SELECT sha256, min(bytes), min(media_type), min(width), min(height), min(created_at) "
        "FROM blobs_before WHERE bundle IS NULL GROUP BY sha256"
    )
    op.execute("DROP TABLE blobs_before")
