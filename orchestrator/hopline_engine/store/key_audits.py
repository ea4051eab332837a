"""What must always be true of the keys of which few tasks are worked on at a time, and of the turns of runs.

Looked at as the other rows are; see ``audit``.
"""

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import Connection, Select, delete, exists, func, or_, select, tuple_

from hopline_engine.core.model import RunState
from hopline_engine.core.order import RUNS, TURNS
from hopline_engine.core.shards import SHARDS
from hopline_engine.store.audit import BY_ITSELF, Audit, Finding, Slice
from hopline_engine.store.runs import in_state
from hopline_engine.store.tables import key_claim, run, task

KEY_OF_NOBODY: Final = Audit(
    name="key-of-nobody", means="a key, or a run's turn, belongs to a task or run that is over", hint=BY_ITSELF
)
FREE_KEY: Final = Audit(
    name="free-key",
    means="a key, or a run's turn, is free and not given to the first that waits for it",
    hint=BY_ITSELF,
)
OF_CLAIMS: Final = (KEY_OF_NOBODY, FREE_KEY)

_PLACE: Final = (key_claim.c.task_id, key_claim.c.queue, key_claim.c.key, key_claim.c.key_limit, key_claim.c.words)
_IS_OVER: Final = or_(
    (key_claim.c.queue != RUNS) & ~exists().where(task.c.id == key_claim.c.task_id),
    (key_claim.c.queue == RUNS) & ~exists().where(run.c.id == key_claim.c.task_id - TURNS, in_state(RunState.RUNNING)),
)


def claims(connection: Connection, *, after: int, limit: int, shards: Collection[int] = range(SHARDS)) -> Slice:
    """Look at up to *limit* claims of keys, from the one after *after*; only at those of tasks in *shards*."""
    which = key_claim.c.task_id > after
    if len(shards) < SHARDS:
        which &= (key_claim.c.task_id % SHARDS).in_(shards)
    wanted = select(key_claim.c.task_id).where(which).order_by(key_claim.c.task_id).limit(limit)
    tasks = list(connection.execute(wanted).scalars())
    if not tasks:
        return Slice([], [])
    among = which & (key_claim.c.task_id <= tasks[-1])
    queries = ((KEY_OF_NOBODY, select(*_PLACE).where(_IS_OVER)), (FREE_KEY, _free()))
    return Slice(
        tasks,
        [
            Finding(audit, row["task_id"], dict(row))
            for audit, query in queries
            for row in connection.execute(query.where(among)).mappings()
        ],
    )


def release(connection: Connection, *, task_id: int) -> None:
    """Remove the claim of a task or run that is over."""
    connection.execute(delete(key_claim).where(key_claim.c.task_id == task_id, _IS_OVER))


def _free() -> Select[*tuple[Any, ...]]:
    """Return the claims that are the first to wait for a key of which less is held than they say."""
    other = key_claim.alias("other")
    same = (other.c.queue == key_claim.c.queue) & (other.c.key == key_claim.c.key)
    comes_first = tuple_(other.c.since, other.c.task_id) < tuple_(key_claim.c.since, key_claim.c.task_id)
    held = select(func.count()).select_from(other).where(same, other.c.is_held).scalar_subquery()
    is_first = ~exists().where(same, ~other.c.is_held, comes_first)
    return select(*_PLACE).where(~key_claim.c.is_held, ~_IS_OVER, is_first, held < key_claim.c.key_limit)
