"""Where cached tokens of prompts were, and how many there are of a key and model."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add the columns. Of requests before nobody knows it."""
    op.add_column("requests", sa.Column("cached_from", sa.String))
    op.add_column(
        "usage", sa.Column("cached_tokens", _BIG, nullable=False, server_default=sa.text("0"))
    )
