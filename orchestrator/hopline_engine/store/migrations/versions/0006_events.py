"""Add events, and what parked tasks wait for."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "wait",
        sa.Column("task_id", _BIG, autoincrement=False, nullable=False),
        sa.Column("run_id", _BIG, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", name="pk_wait"),
    )
    op.create_index("wait_for", "wait", ["name", "key"])
    op.create_table(
        "event",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("emitted_at", sa.Double(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", "key", name="pk_event"),
    )
    op.create_index("event_emitted", "event", ["emitted_at"])
