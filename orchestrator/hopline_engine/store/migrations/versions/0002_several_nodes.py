"""Share the runs among several nodes by shard, and count the losses that a step may be to blame for."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add what is missing."""
    _tasks()
    _nodes()
    _shards()
    _queue_shares()


def _tasks() -> None:
    # Losses of before are not known to be a step's fault.
    op.add_column("task", sa.Column("blamed", sa.Integer(), server_default=sa.text("0"), nullable=False))


def _nodes() -> None:
    op.add_column("node", sa.Column("committed", _BIG, server_default=sa.text("0"), nullable=False))


def _shards() -> None:
    shard = op.create_table(
        "shard",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("node", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_shard"),
        sa.ForeignKeyConstraint(["node"], ["node.id"], name="fk_shard_node", ondelete="SET NULL"),
    )
    op.bulk_insert(shard, [{"id": number, "node": None} for number in range(64)])


def _queue_shares() -> None:
    op.create_table(
        "queue_share",
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("node", sa.Text(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("wanted", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("queue", "node", name="pk_queue_share"),
        sa.CheckConstraint("slots >= 0", name=op.f("ck_queue_share_slots")),
        sa.ForeignKeyConstraint(["queue"], ["queue.name"], name="fk_queue_share_queue", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["node"], ["node.id"], name="fk_queue_share_node", ondelete="CASCADE"),
    )
