"""Keys that may read metrics, and do nothing else."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add their mark."""
    mark = sa.Column("metrics", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("keys", mark)
