"""images in bundles."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("blobs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("bundle", sa.Text(), nullable=True))
        batch_op.add_column(sa.Column("bundle_start", sa.BigInteger(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("blobs", schema=None) as batch_op:
        batch_op.drop_column("bundle_start")
        batch_op.drop_column("bundle")
