"""Requests that have ended."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make their table."""
    # No index but that of the rows themselves: they are written often and read seldom.
    op.create_table(
        "requests",
        sa.Column("seq", _BIG, primary_key=True, autoincrement=False),
        sa.Column("id", sa.String, nullable=False),
        sa.Column("key_id", sa.String, nullable=False),
        sa.Column("model", sa.String, nullable=False),
        sa.Column("personality", sa.String),
        sa.Column("method", sa.String, nullable=False),
        sa.Column("route", sa.String, nullable=False),
        sa.Column("streamed", sa.Boolean, nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("code", sa.String),
        sa.Column("client", sa.String),
        sa.Column("seconds", sa.Float, nullable=False),
        sa.Column("queue", sa.Float, nullable=False),
        sa.Column("load", sa.Float, nullable=False),
        sa.Column("prefill", sa.Float),
        sa.Column("generation", sa.Float),
        sa.Column("prompt_tokens", _BIG, nullable=False),
        sa.Column("cached_tokens", _BIG, nullable=False),
        sa.Column("completion_tokens", _BIG, nullable=False),
        sa.Column("tokens_per_second", sa.Float),
    )
