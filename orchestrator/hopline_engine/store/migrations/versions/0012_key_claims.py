"""Keep which tasks have the keys of which few are worked on at a time."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Make the table."""
    key_text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "key_claim",
        sa.Column("task_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("queue", key_text, nullable=False),
        sa.Column("key", key_text, nullable=False),
        sa.Column("key_limit", sa.Integer(), nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("is_held", sa.Boolean(), nullable=False),
        sa.Column("words", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", name="pk_key_claim"),
    )
    op.create_index("key_claim_key", "key_claim", ["queue", "key"])
