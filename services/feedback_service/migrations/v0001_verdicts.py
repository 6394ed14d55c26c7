"""The tables of verdicts: memories, events and vintages."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables; the service had none before."""
    op.create_table(
        "verdict_memory",
        sa.Column("experiment", sa.String(200), primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
        sa.Column("vintage_at", sa.Float, nullable=True),
    )
    op.create_table(
        "verdict_event",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("experiment", sa.String(200), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("document", sa.String, nullable=False),
        sa.Column("sent", sa.Boolean, nullable=False),
        sa.UniqueConstraint("experiment", "number"),
    )
    op.create_index("ix_verdict_event_sent", "verdict_event", ["sent"])
    op.create_table(
        "verdict_vintage",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("experiment", sa.String(200), nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("results", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("experiment", "at"),
    )
