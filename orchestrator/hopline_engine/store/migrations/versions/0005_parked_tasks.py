"""Let a task be parked: its step waits for something else than an answer."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_NAME = "ck_task_state"


def upgrade() -> None:
    """Allow the state."""
    # SQLite copies the table, and its indexes in any order; they are made in the one that is written down.
    op.drop_index("task_step", "task")
    op.drop_index("task_due", "task")
    with op.batch_alter_table("task") as task:
        task.drop_constraint(op.f(_NAME), type_="check")
        task.create_check_constraint(op.f(_NAME), sa.text("state BETWEEN 0 AND 3"))
    op.create_index("task_step", "task", ["run_id", "node", "item"], unique=True)
    is_due = sa.text("state = 0")
    op.create_index("task_due", "task", ["queue", "schedule_time"], sqlite_where=is_due, postgresql_where=is_due)
