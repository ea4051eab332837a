"""Index the rows that refer to large values elsewhere."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Make the indexes; the byte 1 is nowhere in JSON, and begins a reference."""
    for name, table, column, value in (
        ("step_run_referring", "step_run", "run_id", "result"),
        ("run_input_referring", "run", "id", "input"),
        ("run_result_referring", "run", "id", "result"),
    ):
        op.create_index(
            name,
            table,
            [column],
            sqlite_where=sa.text(f"instr({value}, x'01') > 0"),
            postgresql_where=sa.text(f"position('\\x01'::bytea in {value}) > 0"),
        )
