"""Make the first tables: definitions, runs, their history, tasks, queues and nodes."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_KEY_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

_ABSORBING = {
    "sqlite": (
        (
            "CREATE TRIGGER run_is_final BEFORE UPDATE ON run WHEN OLD.state <> 'running' "
            "BEGIN SELECT RAISE(ABORT, 'the run has ended'); END"
        ),
        (
            "CREATE TRIGGER step_run_is_final BEFORE UPDATE ON step_run "
            "BEGIN SELECT RAISE(ABORT, 'the step has ended'); END"
        ),
        (
            "CREATE TRIGGER attempt_is_final BEFORE UPDATE ON attempt "
            "BEGIN SELECT RAISE(ABORT, 'the attempt has ended'); END"
        ),
    ),
    "postgresql": (
        (
            "CREATE FUNCTION refuse_update() RETURNS trigger LANGUAGE plpgsql AS $$ "
            "BEGIN RAISE EXCEPTION USING MESSAGE = TG_ARGV[0], ERRCODE = 'integrity_constraint_violation'; END $$"
        ),
        (
            "CREATE TRIGGER run_is_final BEFORE UPDATE ON run FOR EACH ROW WHEN (OLD.state <> 'running') "
            "EXECUTE FUNCTION refuse_update('the run has ended')"
        ),
        (
            "CREATE TRIGGER step_run_is_final BEFORE UPDATE ON step_run FOR EACH ROW "
            "EXECUTE FUNCTION refuse_update('the step has ended')"
        ),
        (
            "CREATE TRIGGER attempt_is_final BEFORE UPDATE ON attempt FOR EACH ROW "
            "EXECUTE FUNCTION refuse_update('the attempt has ended')"
        ),
    ),
}
"""Final states change no more, whatever statement tries."""

_STORAGE = {
    "sqlite": (),
    "postgresql": (
        # A row of a task lives for moments, so a part of the table says nothing of how much there is to clean up, and
        # cleaning up must not dawdle. Statistics of an hour ago say nothing either.
        (
            "ALTER TABLE task SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, "
            "autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0, "
            "autovacuum_analyze_threshold = 5000)"
        ),
        # These few rows are updated all the time: with room on the page the new version stays on it.
        "ALTER TABLE node SET (fillfactor = 20)",
        "ALTER TABLE queue SET (fillfactor = 20)",
    ),
}


def upgrade() -> None:
    """Make everything."""
    _definitions()
    _runs()
    _history()
    _tasks()
    _nodes()
    database = op.get_bind().dialect.name
    for statement in (*_ABSORBING[database], *_STORAGE[database]):
        op.execute(statement)


def _definitions() -> None:
    op.create_table(
        "definition",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_definition"),
    )
    op.create_table(
        "workflow",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_workflow"),
        sa.ForeignKeyConstraint(["digest"], ["definition.digest"], name="fk_workflow_digest"),
    )


def _runs() -> None:
    op.create_table(
        "run",
        sa.Column("id", _BIG, autoincrement=False, nullable=False),
        sa.Column("public_id", _KEY_TEXT, nullable=False),
        sa.Column("workflow", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text()),
        sa.Column("parent_id", _BIG),
        sa.Column("parent_node", sa.Integer()),
        sa.Column("parent_item", sa.Integer()),
        sa.Column("retry_of", _BIG),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double()),
        sa.Column("input", sa.LargeBinary(), nullable=False),
        sa.Column("result", sa.LargeBinary()),
        sa.Column("error", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("id", name="pk_run"),
        sa.CheckConstraint(
            "state = 'running' OR state = 'succeeded' OR state = 'failed' OR state = 'cancelled'",
            name=op.f("ck_run_state"),
        ),
        sa.CheckConstraint("(state = 'running') = (ended_at IS NULL)", name=op.f("ck_run_ended")),
        sa.UniqueConstraint("public_id", name="uq_run_public_id"),
        sa.ForeignKeyConstraint(["digest"], ["definition.digest"], name="fk_run_digest"),
    )
    _partial("run_key", "run", "idempotency_key", where="idempotency_key IS NOT NULL", unique=True)
    _partial("run_children", "run", "parent_id", where="parent_id IS NOT NULL")
    _partial("run_live", "run", "id", where="state = 'running'")
    _partial("run_listed", "run", "created_at", "id", where="parent_id IS NULL")
    _partial("run_listed_by_workflow", "run", "workflow", "created_at", "id", where="parent_id IS NULL")
    _partial("run_failed", "run", "created_at", "id", where="parent_id IS NULL AND state = 'failed'")


def _history() -> None:
    op.create_table(
        "step_run",
        sa.Column("run_id", _BIG, autoincrement=False, nullable=False),
        sa.Column("node", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("item", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Double()),
        sa.Column("ended_at", sa.Double(), nullable=False),
        sa.Column("error", sa.LargeBinary()),
        sa.Column("result", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("run_id", "node", "item", name="pk_step_run"),
        sa.CheckConstraint(
            "state = 'succeeded' OR state = 'failed' OR state = 'skipped' OR state = 'upstream_failed' "
            "OR state = 'cancelled'",
            name=op.f("ck_step_run_state"),
        ),
    )
    op.create_table(
        "attempt",
        sa.Column("run_id", _BIG, autoincrement=False, nullable=False),
        sa.Column("node", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("item", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=False),
        sa.Column("error", sa.LargeBinary()),
        sa.Column("logs", sa.Text()),
        sa.PrimaryKeyConstraint("run_id", "node", "item", "attempt", name="pk_attempt"),
        sa.CheckConstraint(
            "state = 'succeeded' OR state = 'failed' OR state = 'timed_out' OR state = 'lost' OR state = 'cancelled'",
            name=op.f("ck_attempt_state"),
        ),
        sa.CheckConstraint("attempt >= 1", name=op.f("ck_attempt_attempt")),
    )


def _tasks() -> None:
    op.create_table(
        "task",
        sa.Column("id", _BIG, autoincrement=False, nullable=False),
        sa.Column("run_id", _BIG, nullable=False),
        sa.Column("node", sa.Integer(), nullable=False),
        sa.Column("item", sa.Integer(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("lost", sa.Integer(), nullable=False),
        sa.Column("schedule_time", sa.Double(), nullable=False),
        sa.Column("deadline_time", sa.Double()),
        sa.Column("first_attempt_at", sa.Double()),
        sa.Column("leased_at", sa.Double()),
        sa.Column("epoch", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_task"),
        sa.CheckConstraint("state BETWEEN 0 AND 2", name=op.f("ck_task_state")),
    )
    op.create_index("task_step", "task", ["run_id", "node", "item"], unique=True)
    _partial("task_due", "task", "queue", "schedule_time", where="state = 0")
    op.create_table(
        "queue",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("max_dispatches_per_second", sa.Double()),
        sa.Column("max_burst_size", sa.Integer()),
        sa.Column("max_concurrent_dispatches", sa.Integer()),
        sa.Column("tokens", sa.Double(), nullable=False),
        sa.Column("tokens_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_queue"),
        sa.CheckConstraint("state = 'running' OR state = 'paused'", name=op.f("ck_queue_state")),
        sa.CheckConstraint("max_dispatches_per_second > 0", name=op.f("ck_queue_rate")),
        sa.CheckConstraint("max_burst_size >= 1", name=op.f("ck_queue_burst")),
        sa.CheckConstraint("max_concurrent_dispatches >= 1", name=op.f("ck_queue_concurrency")),
    )


def _nodes() -> None:
    op.create_table(
        "node",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("epoch", _BIG, nullable=False),
        sa.Column("url", sa.Text()),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("heartbeat_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_node"),
    )
    op.create_table(
        "meta",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_meta"),
    )


def _partial(name: str, table: str, *columns: str, where: str, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, list(columns), unique=unique, sqlite_where=condition, postgresql_where=condition)
