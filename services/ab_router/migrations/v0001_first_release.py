"""The tables of the first release."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create what is missing: the first release created its tables without Alembic."""
    op.create_table(
        "experiment_revision",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("document", sa.String, nullable=False),
        sa.Column("changed_at", sa.Float, nullable=False),
        sa.UniqueConstraint("name", "revision"),
        if_not_exists=True,
    )
    op.create_index("ix_experiment_revision_name", "experiment_revision", ["name"], if_not_exists=True)
