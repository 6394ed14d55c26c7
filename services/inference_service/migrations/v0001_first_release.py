"""The tables of the first release."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create what is missing: the first release created its tables without Alembic."""
    op.create_table(
        "model_version",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.Column("document", sa.String, nullable=False),
        sa.Column("registered_at", sa.Float, nullable=False),
        sa.UniqueConstraint("model", "version"),
        if_not_exists=True,
    )
    op.create_index("ix_model_version_model", "model_version", ["model"], if_not_exists=True)
    op.create_table(
        "model_champion",
        sa.Column("model", sa.String(200), primary_key=True),
        sa.Column("version", sa.String(64), nullable=False),
        if_not_exists=True,
    )
