"""The tables of the first release."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create what is missing: the first release created its tables without Alembic."""
    op.create_table(
        "feature_version",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("document", sa.String, nullable=False),
        sa.Column("seam", sa.String),
        sa.UniqueConstraint("name", "number"),
        if_not_exists=True,
    )
    op.create_table(
        "feature_retirement",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("newest", sa.Integer, nullable=False),
        sa.UniqueConstraint("name", "number"),
        if_not_exists=True,
    )
    op.create_table(
        "feature_state",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("generation", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "feature_store",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("epoch", sa.String(64), nullable=False),
        if_not_exists=True,
    )
