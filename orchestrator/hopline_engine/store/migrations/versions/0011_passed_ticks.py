"""Find the ticks that were passed over by when that was, so that they are not kept for ever."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Make the index."""
    passed = sa.text("state > 4")
    op.create_index("tick_passed", "tick", ["decided_at"], sqlite_where=passed, postgresql_where=passed)
