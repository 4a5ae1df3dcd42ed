"""Keys, their usage, and the memory of models."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "keys",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("description", sa.String, nullable=False),
        sa.Column("hash", sa.String, nullable=False, unique=True),
        sa.Column("admin", sa.Boolean, nullable=False),
        sa.Column("created", _TIME, nullable=False),
        sa.Column("expires", _TIME),
        sa.Column("revoked", _TIME),
        sa.Column("last_activity", _TIME),
        sa.Column("models", sa.JSON),
        sa.Column("personalities", sa.JSON),
        sa.Column("default_personality", sa.String),
        sa.Column("limits", sa.JSON),
        sa.Column("imported", sa.Boolean, nullable=False),
    )
    # key_id has no foreign key: with auth disabled, usage is counted under an id of no key.
    op.create_table(
        "usage",
        sa.Column("key_id", sa.String, primary_key=True),
        sa.Column("model", sa.String, primary_key=True),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("requests", _BIG, nullable=False),
        sa.Column("prompt_tokens", _BIG, nullable=False),
        sa.Column("completion_tokens", _BIG, nullable=False),
    )
    op.create_table(
        "model_memory",
        sa.Column("fingerprint", sa.String, primary_key=True),
        sa.Column("bytes", _BIG, nullable=False),
        sa.Column("measured", _TIME, nullable=False),
    )
