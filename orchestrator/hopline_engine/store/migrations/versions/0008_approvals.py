"""Add what people are asked to decide, and what they decided."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "approval",
        sa.Column("task_id", _BIG, autoincrement=False, nullable=False),
        sa.Column("run_id", _BIG, nullable=False),
        sa.Column("node", sa.Integer(), nullable=False),
        sa.Column("item", sa.Integer(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("asked_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double()),
        sa.Column("approved", sa.Boolean()),
        sa.Column("person", sa.Text()),
        sa.Column("decided_at", sa.Double()),
        sa.Column("recipients", sa.LargeBinary(), nullable=False),
        sa.Column("form", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("task_id", name="pk_approval"),
    )
    op.create_index("approval_step", "approval", ["run_id", "node", "item"])
    op.create_index("approval_asked", "approval", ["asked_at"])
