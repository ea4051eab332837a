"""Runs that only wait, and that no node has in memory."""

from collections.abc import Collection
from typing import Final

from sqlalchemy import ColumnElement, Connection, exists, func, select

from hopline_engine.core.model import RunId
from hopline_engine.core.shards import SHARDS
from hopline_engine.store.tables import parked_run, run

RUNS_AT_A_TIME: Final = 10_000
"""Runs that one statement names; databases take 32,766 parameters or fewer."""


def is_parked(run_id: ColumnElement[int]) -> ColumnElement[bool]:
    """Return whether a run is parked, as a condition."""
    return exists().where(parked_run.c.run_id == run_id)


def due(connection: Connection, *, at: float, shards: Collection[int], limit: int) -> list[RunId]:
    """Return up to *limit* parked runs of shards to which something happens by itself by a time, the earliest first."""
    query = select(parked_run.c.run_id).where(parked_run.c.wake_at <= at, _in(shards))
    rows = connection.execute(query.order_by(parked_run.c.wake_at).limit(limit)).scalars()
    return [RunId(number) for number in rows]


def next_wake(connection: Connection, shards: Collection[int]) -> float | None:
    """Return when something happens by itself to the first parked run of shards."""
    query = select(parked_run.c.wake_at).where(parked_run.c.wake_at.is_not(None), _in(shards))
    return connection.execute(query.order_by(parked_run.c.wake_at).limit(1)).scalar()


def root_of(connection: Connection, run_id: RunId) -> RunId | None:
    """Return the run that somebody started of which a parked run is a part; ``None`` if it is not parked."""
    if connection.execute(select(parked_run.c.run_id).where(parked_run.c.run_id == run_id)).first() is None:
        return None
    root = run_id
    while (above := connection.execute(select(run.c.parent_id).where(run.c.id == root)).scalar()) is not None:
        root = RunId(above)
    return root


def among(connection: Connection, runs: Collection[RunId]) -> set[RunId]:
    """Return those of some runs that are parked."""
    ordered, found = sorted(runs), set[RunId]()
    for begin in range(0, len(ordered), RUNS_AT_A_TIME):
        some = parked_run.c.run_id.in_(ordered[begin : begin + RUNS_AT_A_TIME])
        found.update(map(RunId, connection.execute(select(parked_run.c.run_id).where(some)).scalars()))
    return found


def count(connection: Connection) -> int:
    """Return how many runs are parked."""
    return connection.execute(select(func.count()).select_from(parked_run)).scalar_one()


def _in(shards: Collection[int]) -> ColumnElement[bool]:
    if len(shards) == SHARDS:
        return parked_run.c.run_id > 0
    return (parked_run.c.run_id % SHARDS).in_(shards)
