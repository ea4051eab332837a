"""Ended runs, with all that belongs to them, and passed-over ticks, deleted when they are old: a slice at a time.

A run goes with its sub-runs, their steps, attempts, logs and approvals, and the tick that started it; the newest rows
first and the run itself last, so that what is interrupted is found again. What is still needed stays: a run of which a
sub-run has not ended, one that a live run goes on from, and one whose tick may yet ask for it.
"""

from collections.abc import Collection, Iterable
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, and_, delete, func, literal, or_, select, tuple_

from hopline_engine.core.model import RunState
from hopline_engine.core.schedules import tick_of_key
from hopline_engine.core.shards import SHARDS
from hopline_engine.core.ticks import TickState
from hopline_engine.store.tables import approval, attempt, run, step_run, tick

RUNS_LOOKED_AT: Final = 50
"""In one slice, without their sub-runs."""
ROWS_AT_A_TIME: Final = 2_000
"""Deleted in one transaction: other commits wait for it."""


class Place(NamedTuple):
    """Up to which run was looked."""

    created_at: float
    id: int


BEGIN: Final = Place(float("-inf"), -1)


class Slice(NamedTuple):
    """Runs that are old enough, with how many rows they have."""

    families: list[list[int]]
    """Each with its sub-runs, the innermost last."""
    place: Place | None
    """Up to which run was looked; ``None`` if that was the last one."""


class Pruned(NamedTuple):
    """How much was deleted, or would be."""

    runs: int = 0
    """Sub-runs too."""
    steps: int = 0
    attempts: int = 0
    ticks: int = 0
    is_all: bool = True
    """Whether nothing is left of what was asked for."""

    def __add__(self, other: object) -> "Pruned":
        """Return both together."""
        if not isinstance(other, Pruned):
            return NotImplemented
        return Pruned(
            self.runs + other.runs,
            self.steps + other.steps,
            self.attempts + other.attempts,
            self.ticks + other.ticks,
            self.is_all and other.is_all,
        )


def old_runs(
    connection: Connection, *, before: float, after: Place = BEGIN, shards: Collection[int] = range(SHARDS)
) -> Slice:
    """Return runs of some shards that ended before a time, the oldest first, from the one after a place."""
    query = (
        select(run.c.created_at, run.c.id, run.c.state, run.c.ended_at)
        .where(run.c.parent_id.is_(None), run.c.created_at < before)
        .order_by(run.c.created_at, run.c.id)
        .limit(RUNS_LOOKED_AT)
    )
    if after != BEGIN:  # said as two comparisons, which both databases look up in the index
        later = or_(run.c.created_at > after.created_at, run.c.id > after.id)
        query = query.where(run.c.created_at >= after.created_at, later)
    if len(shards) < SHARDS:
        query = query.where((run.c.id % SHARDS).in_(shards))
    rows = connection.execute(query).all()
    old = [row.id for row in rows if row.ended_at is not None and row.ended_at < before]
    place = Place(rows[-1].created_at, rows[-1].id) if len(rows) == RUNS_LOOKED_AT else None
    return Slice(_families(connection, old), place)


def count(connection: Connection, families: Iterable[list[int]]) -> Pruned:
    """Return what there is of runs."""
    ids = [each for family in families for each in family]
    if not ids:
        return Pruned()
    sizes = _sizes(connection, ids)
    steps, attempts = (sum(size[kind] for size in sizes.values()) for kind in (0, 1))
    return Pruned(len(ids), steps, attempts, len(_ticks_of(connection, ids)))


def remove_runs(connection: Connection, families: Iterable[list[int]]) -> Pruned:
    """Delete runs that ``old_runs`` returned, as far as one transaction should, and that nobody else deletes now."""
    families = list(families)
    roots = select(run.c.id).where(run.c.id.in_([family[0] for family in families]))
    mine = set(connection.execute(roots.with_for_update(skip_locked=True)).scalars())
    room, pruned = ROWS_AT_A_TIME, Pruned()
    for family in families:
        if family[0] not in mine:
            continue
        for part in _parts(family[::-1]):
            pruned += _remove(connection, part, room - pruned.steps - pruned.attempts - pruned.runs)
            if not pruned.is_all:
                return pruned
    return pruned


def old_ticks(connection: Connection, *, before: float) -> int:
    """Return how many ticks without a run were decided on before a time."""
    return int(connection.execute(select(func.count()).select_from(tick).where(_is_passed(before))).scalar_one())


def remove_ticks(connection: Connection, *, before: float) -> Pruned:
    """Delete ticks without a run that were decided on before a time, as many as one transaction should.

    None of them can fire again: schedules go on from their next tick, which is later.
    """
    old = select(tick.c.schedule, tick.c.at).where(_is_passed(before)).order_by(tick.c.decided_at).limit(ROWS_AT_A_TIME)
    found = [tuple(row) for row in connection.execute(old.with_for_update(skip_locked=True))]
    if found:
        # Again with its state: it may be part of a back-fill by now.
        chosen = tuple_(tick.c.schedule, tick.c.at).in_(found)
        connection.execute(delete(tick).where(chosen, _is_passed(before)))
    return Pruned(ticks=len(found), is_all=len(found) < ROWS_AT_A_TIME)


def sweep(connection: Connection, *, before: float, is_rehearsed: bool) -> Pruned:
    """Delete all that ended before a time, in transactions of its own; or only count it."""
    pruned = Pruned()
    following: Place | None = BEGIN
    while following is not None:
        place = following
        families, following = old_runs(connection, before=before, after=place)
        part = count(connection, families) if is_rehearsed else remove_runs(connection, families)
        pruned += part._replace(is_all=True)
        following = following if part.is_all else place
        connection.commit()
    part = Pruned(ticks=old_ticks(connection, before=before)) if is_rehearsed else Pruned(is_all=False)
    while not part.is_all:
        pruned += part._replace(is_all=True)
        part = remove_ticks(connection, before=before)
        connection.commit()
    return pruned + part


def _is_passed(before: float) -> Any:
    # The state is written into the statement: SQLite takes a partial index only if it sees the value.
    done = literal(int(TickState.DONE), literal_execute=True)
    return and_(tick.c.decided_at < before, tick.c.state > done, tick.c.at < before)


def _families(connection: Connection, roots: Collection[int]) -> list[list[int]]:
    """Return runs with their sub-runs, but for those that are still needed."""
    family = {root: [root] for root in roots}
    root_of = {root: root for root in roots}
    needed: set[int] = set()
    level = list(roots)
    while level:
        found: list[tuple[int, int, str]] = []
        for part in _parts(level):
            query = select(run.c.id, run.c.parent_id, run.c.state).where(run.c.parent_id.in_(part))
            found += [(row.id, row.parent_id, row.state) for row in connection.execute(query)]
        for child, parent, state in found:
            root = root_of[child] = root_of[parent]
            family[root].append(child)
            if state == RunState.RUNNING:
                needed.add(root)
        level = [child for child, _, _ in found]
    for part in _parts(list(root_of)):
        needed |= {root_of[each] for each in _wanted(connection, part)}
    return [family[root] for root in roots if root not in needed]


def _wanted(connection: Connection, ids: Collection[int]) -> set[int]:
    """Return those of some runs that a live run goes on from, or that an open tick asks for."""
    live = select(run.c.retry_of).where(run.c.retry_of.in_(ids), run.c.state == RunState.RUNNING.value)
    wanted = set(connection.execute(live).scalars())
    open_ticks = _ticks_of(connection, ids, is_open=True)
    return wanted | {each for _, _, each in open_ticks}


def _ticks_of(connection: Connection, ids: Collection[int], *, is_open: bool = False) -> list[tuple[str, float, int]]:
    """Return the ticks that started some runs, those that ask for a run still or the others."""
    keyed = select(run.c.id, run.c.idempotency_key).where(run.c.id.in_(ids), run.c.idempotency_key.is_not(None))
    ticks = {tick_of_key(row.idempotency_key): row.id for row in connection.execute(keyed)}
    ticks.pop(None, None)
    if not ticks:
        return []
    is_asked = tick.c.state < int(TickState.STARTED)
    query = select(tick.c.schedule, tick.c.at).where(
        tuple_(tick.c.schedule, tick.c.at).in_([each for each in ticks if each is not None]),
        is_asked if is_open else ~is_asked,
    )
    return [(row.schedule, row.at, ticks[row.schedule, row.at]) for row in connection.execute(query)]


def _remove(connection: Connection, ids: list[int], room: int) -> Pruned:
    """Delete runs of one family, the first ones first, up to so many rows."""
    sizes = _sizes(connection, ids)
    taken: list[int] = []
    for each in ids:
        size = 1 + sum(sizes[each])
        if size > room:
            part = _remove_part(connection, each, room) if not taken else Pruned()
            return _remove_whole(connection, taken, sizes) + part._replace(is_all=False)
        taken.append(each)
        room -= size
    return _remove_whole(connection, taken, sizes)


def _remove_whole(connection: Connection, ids: list[int], sizes: dict[int, tuple[int, int]]) -> Pruned:
    if not ids:
        return Pruned()
    ticks = _ticks_of(connection, ids)
    if ticks:
        connection.execute(delete(tick).where(tuple_(tick.c.schedule, tick.c.at).in_([each[:2] for each in ticks])))
    for table in (approval, attempt, step_run):
        connection.execute(delete(table).where(table.c.run_id.in_(ids)))
    connection.execute(delete(run).where(run.c.id.in_(ids)))
    return Pruned(len(ids), sum(sizes[each][0] for each in ids), sum(sizes[each][1] for each in ids), len(ticks))


def _remove_part(connection: Connection, run_id: int, room: int) -> Pruned:
    """Delete some of the attempts of a run that has too many rows for one transaction, or of its steps."""
    for table, last_key in ((attempt, [attempt.c.attempt]), (step_run, [])):
        key = [table.c.node, table.c.item, *last_key]
        first = select(*key).where(table.c.run_id == run_id).order_by(*key).limit(max(1, room))
        found = [tuple(row) for row in connection.execute(first)]
        if found:
            connection.execute(delete(table).where(table.c.run_id == run_id, tuple_(*key) <= found[-1]))
            return Pruned(attempts=len(found)) if table is attempt else Pruned(steps=len(found))
    return Pruned()


def _sizes(connection: Connection, ids: list[int]) -> dict[int, tuple[int, int]]:
    """Return how many steps and attempts each of some runs has."""
    found: list[dict[int, int]] = [{}, {}]
    for part in _parts(ids):
        for rows, table in zip(found, (step_run, attempt), strict=True):
            query = select(table.c.run_id, func.count()).where(table.c.run_id.in_(part)).group_by(table.c.run_id)
            rows.update((run_id, number) for run_id, number in connection.execute(query))
    steps, attempts = found
    return {each: (steps.get(each, 0), attempts.get(each, 0)) for each in ids}


def _parts(ids: list[int], size: int = 500) -> Iterable[list[int]]:
    """Yield ids in parts that one statement may name."""
    for begin in range(0, len(ids), size):
        yield ids[begin : begin + size]
