"""Add schedules and their ticks."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_KEY_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    _schedules()
    _ticks()


def _schedules() -> None:
    op.create_table(
        "schedule",
        sa.Column("name", _KEY_TEXT, nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("workflow", sa.Text(), nullable=False),
        sa.Column("is_edited", sa.Boolean(), nullable=False),
        sa.Column("is_paused", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("anchor_at", sa.Double(), nullable=False),
        sa.Column("next_tick", sa.Double()),
        sa.Column("due_at", sa.Double()),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("declared", sa.LargeBinary()),
        sa.Column("input", sa.LargeBinary(), nullable=False),
        sa.Column("backfill", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("name", name="pk_schedule"),
    )
    _partial("schedule_due", "schedule", "due_at", where="due_at IS NOT NULL")
    op.create_table(
        "schedule_version",
        sa.Column("schedule", _KEY_TEXT, nullable=False),
        sa.Column("since", sa.Double(), nullable=False),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("schedule", "since", name="pk_schedule_version"),
    )


def _ticks() -> None:
    op.create_table(
        "tick",
        sa.Column("schedule", _KEY_TEXT, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("decided_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double()),
        sa.Column("run_id", _BIG),
        sa.Column("reason", sa.Text()),
        sa.PrimaryKeyConstraint("schedule", "at", name="pk_tick"),
        sa.CheckConstraint("state BETWEEN 0 AND 7", name=op.f("ck_tick_state")),
    )
    _partial("tick_open", "tick", "state", "schedule", "at", where="state < 4")


def _partial(name: str, table: str, *columns: str, where: str) -> None:
    condition = sa.text(where)
    op.create_index(name, table, list(columns), sqlite_where=condition, postgresql_where=condition)
