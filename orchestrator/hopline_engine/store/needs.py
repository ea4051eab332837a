"""What runs that have not ended still have before them: steps of their versions that have not ended there."""

from collections import Counter
from typing import Final, NamedTuple

from sqlalchemy import Connection, exists, func, select

from hopline_engine.core.model import WHOLE, Digest, RunState
from hopline_engine.store.runs import in_state
from hopline_engine.store.tables import definition, run, step_run, workflow

_IS_LIVE: Final = in_state(RunState.RUNNING)


class Progress(NamedTuple):
    """How far the live runs of one version are."""

    runs: int
    ended: Counter[int]
    """In how many of them each step, by its place in the plan, has ended."""


class Version(NamedTuple):
    """One version of a workflow, as a list shows it."""

    digest: Digest
    created_at: float
    is_current: bool
    """Whether new runs use it."""
    live_runs: int


def progress(connection: Connection) -> dict[Digest, Progress]:
    """Return how far live runs are, those of sub-workflows included, by version."""
    counted = select(run.c.digest, func.count()).where(_IS_LIVE).group_by(run.c.digest)
    found = {Digest(digest): Progress(runs, Counter()) for digest, runs in connection.execute(counted)}
    ended = (
        select(run.c.digest, step_run.c.node, func.count())
        .join(step_run, step_run.c.run_id == run.c.id)
        .where(_IS_LIVE, step_run.c.item == WHOLE)
        .group_by(run.c.digest, step_run.c.node)
    )
    for digest, node, runs in connection.execute(ended):
        found[Digest(digest)].ended[node] = runs
    return found


def runs_before(connection: Connection, *, digest: Digest, node: int, limit: int) -> list[str]:
    """Return the ids of some live runs of a version in which a step has not ended, oldest first."""
    has_ended = exists().where(step_run.c.run_id == run.c.id, step_run.c.node == node, step_run.c.item == WHOLE)
    wanted = select(run.c.public_id).where(_IS_LIVE, run.c.digest == digest, ~has_ended)
    return list(connection.execute(wanted.order_by(run.c.id).limit(limit)).scalars())


def versions(connection: Connection, name: str) -> list[Version]:
    """Return the versions of a workflow that are stored, newest first."""
    current = connection.execute(select(workflow.c.digest).where(workflow.c.name == name)).scalar_one_or_none()
    live = select(func.count()).where(_IS_LIVE, run.c.digest == definition.c.digest).scalar_subquery()
    stored = select(definition.c.digest, definition.c.created_at, live.label("live")).where(definition.c.name == name)
    rows = connection.execute(stored.order_by(definition.c.created_at.desc(), definition.c.digest))
    return [Version(Digest(row.digest), row.created_at, row.digest == current, row.live) for row in rows]
