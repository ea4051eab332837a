"""Add the priority of a run."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Runs that are there have the one that all have who name none."""
    op.add_column("run", sa.Column("priority", sa.Integer(), nullable=False, server_default=sa.text("0")))
