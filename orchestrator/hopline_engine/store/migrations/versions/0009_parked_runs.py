"""Keep which runs only wait, so that no node needs to have them in memory."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "parked_run",
        sa.Column("run_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("wake_at", sa.Double()),
        sa.PrimaryKeyConstraint("run_id", name="pk_parked_run"),
    )
    op.create_index("parked_run_wake", "parked_run", ["wake_at"])
