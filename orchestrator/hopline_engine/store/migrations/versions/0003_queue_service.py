"""Add what the queue service keeps: queues, tasks, attempts, held names and operations."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_KEY_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    _queues()
    _tasks()
    _attempts()
    _names_and_operations()


def _queues() -> None:
    op.create_table(
        "cloud_queue",
        sa.Column("key", _KEY_TEXT, nullable=False),
        sa.Column("parent", _KEY_TEXT, nullable=False),
        sa.Column("is_pull", sa.Boolean(), nullable=False),
        sa.Column("is_shared", sa.Boolean(), nullable=False),
        sa.Column("purge_time", sa.Double()),
        sa.Column("create_time", sa.Double(), nullable=False),
        sa.Column("config", sa.LargeBinary(), nullable=False),
        sa.Column("policy", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("key", name="pk_cloud_queue"),
    )
    op.create_index("cloud_queue_listed", "cloud_queue", ["parent", "key"])


def _tasks() -> None:
    op.create_table(
        "cloud_task",
        sa.Column("id", _BIG, autoincrement=False, nullable=False),
        sa.Column("queue", _KEY_TEXT, nullable=False),
        sa.Column("name", _KEY_TEXT, nullable=False),
        sa.Column("is_named", sa.Boolean(), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("schedule_time", sa.Double(), nullable=False),
        sa.Column("create_time", sa.Double(), nullable=False),
        sa.Column("expire_time", sa.Double(), nullable=False),
        sa.Column("dispatch_deadline", sa.Double()),
        sa.Column("dispatch_count", sa.Integer(), nullable=False),
        sa.Column("response_count", sa.Integer(), nullable=False),
        sa.Column("execution_count", sa.Integer(), nullable=False),
        sa.Column("lost_count", sa.Integer(), nullable=False),
        sa.Column("first_dispatch_time", sa.Double()),
        sa.Column("last_schedule_time", sa.Double()),
        sa.Column("last_dispatch_time", sa.Double()),
        sa.Column("last_response_time", sa.Double()),
        sa.Column("last_code", sa.Integer()),
        sa.Column("last_message", sa.Text()),
        sa.Column("previous_response", sa.Integer()),
        sa.Column("retry_reason", sa.Text(), nullable=False),
        sa.Column("node", sa.Text()),
        sa.Column("tag", sa.Text()),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_cloud_task"),
        sa.CheckConstraint("stage BETWEEN 0 AND 2", name=op.f("ck_cloud_task_stage")),
    )
    _partial("cloud_task_name", "cloud_task", "queue", "name", where="stage < 2", unique=True)
    _partial("cloud_task_due", "cloud_task", "queue", "schedule_time", "id", where="stage = 0")
    _partial("cloud_task_dispatched", "cloud_task", "node", where="stage = 1")
    _partial("cloud_task_dead", "cloud_task", "queue", "id", where="stage = 2")
    op.create_index("cloud_task_expires", "cloud_task", ["expire_time"])


def _attempts() -> None:
    op.create_table(
        "cloud_attempt",
        sa.Column("task_id", _BIG, autoincrement=False, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("queue", _KEY_TEXT, nullable=False),
        sa.Column("name", _KEY_TEXT, nullable=False),
        sa.Column("dispatch_time", sa.Double(), nullable=False),
        sa.Column("end_time", sa.Double(), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("code", sa.Integer(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("response_head", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("task_id", "number", name="pk_cloud_attempt"),
    )
    op.create_index("cloud_attempt_listed", "cloud_attempt", ["queue", "name", "dispatch_time"])
    op.create_index("cloud_attempt_ended", "cloud_attempt", ["end_time"])


def _names_and_operations() -> None:
    op.create_table(
        "cloud_tombstone",
        sa.Column("queue", _KEY_TEXT, nullable=False),
        sa.Column("name", _KEY_TEXT, nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("queue", "name", name="pk_cloud_tombstone"),
    )
    op.create_index("cloud_tombstone_until", "cloud_tombstone", ["until"])
    op.create_table(
        "cloud_operation",
        sa.Column("name", _KEY_TEXT, nullable=False),
        sa.Column("create_time", sa.Double(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_cloud_operation"),
    )
    op.create_index("cloud_operation_made", "cloud_operation", ["create_time"])


def _partial(name: str, table: str, *columns: str, where: str, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, list(columns), unique=unique, sqlite_where=condition, postgresql_where=condition)
