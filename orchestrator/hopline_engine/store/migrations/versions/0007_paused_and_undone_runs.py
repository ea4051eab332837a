"""Keep of each run which one it is a fork of, whether it is paused, and how it will end once it is undone."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add what is missing."""
    op.add_column("run", sa.Column("fork_of", sa.BigInteger().with_variant(sa.Integer(), "sqlite")))
    op.add_column("run", sa.Column("paused_at", sa.Double()))
    op.add_column("run", sa.Column("ending", sa.Text()))
    is_retry = sa.text("retry_of IS NOT NULL")
    op.create_index("run_retries", "run", ["retry_of"], sqlite_where=is_retry, postgresql_where=is_retry)
