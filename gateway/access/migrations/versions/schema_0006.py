"""In which slot of llama-server requests were, and as which task."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns. Of requests before nobody knows it."""
    op.add_column("requests", sa.Column("slot", sa.Integer))
    task = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    op.add_column("requests", sa.Column("task", task))
