"""The record of promotions: who made which version the champion, and why."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Create the table; a champion of before has no record."""
    op.create_table(
        "model_promotion",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("document", sa.String, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.UniqueConstraint("model", "number"),
    )
    op.create_index("ix_model_promotion_model", "model_promotion", ["model"])
