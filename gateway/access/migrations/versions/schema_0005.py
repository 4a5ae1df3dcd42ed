"""Responses and conversations that are kept."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "responses",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("key_id", sa.String, nullable=False, index=True),
        sa.Column("created", _BIG, nullable=False),
        sa.Column("used", _BIG, nullable=False, index=True),
        sa.Column("previous_id", sa.String),
        sa.Column("conversation_id", sa.String),
        sa.Column("running", sa.String),
        sa.Column("bytes", _BIG, nullable=False),
        sa.Column("response", sa.LargeBinary, nullable=False),
        sa.Column("input", sa.LargeBinary, nullable=False),
        sa.Column("events", sa.LargeBinary),
    )
    op.create_table(
        "conversations",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("key_id", sa.String, nullable=False, index=True),
        sa.Column("created", _BIG, nullable=False),
        sa.Column("used", _BIG, nullable=False, index=True),
        sa.Column("metadata", sa.JSON(none_as_null=True)),
    )
    op.create_table(
        "conversation_items",
        sa.Column("conversation_id", sa.String, primary_key=True),
        sa.Column("seq", _BIG, primary_key=True, autoincrement=False),
        sa.Column("id", sa.String, nullable=False),
        sa.Column("bytes", _BIG, nullable=False),
        sa.Column("item", sa.LargeBinary, nullable=False),
    )
