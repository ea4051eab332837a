"""Schedules and their ticks as stored.

A schedule changes only by statements that name the revision they were decided on, so that of several nodes, or people,
that decide at the same time one is right and the others look again. A tick is one row for ever: that is what makes a
run for it start once, together with the idempotency key that its run has.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, delete, func, literal, select, true, update

from hopline_engine.core.model import RunId, RunState
from hopline_engine.core.shards import SHARDS
from hopline_engine.core.ticks import DecidedTick, TickState, Verdict
from hopline_engine.store.dialect import insert_missing, insert_new, now
from hopline_engine.store.tables import run, schedule, schedule_version, tick

_OPEN: Final = (TickState.WAITING, TickState.QUEUED, TickState.DUE, TickState.STARTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSchedule:
    """A schedule."""

    name: str
    shard: int
    """Of the part of the work whose node fires it."""
    workflow: str
    input: bytes
    """JSON of the values that runs are given."""
    spec: bytes
    """JSON of what is in force; see ``core.schedules``."""
    declared: bytes | None
    """The same of what the workflow's file says; ``None`` when that says nothing."""
    is_edited: bool
    """Whether what is in force was set by hand, and not by the file."""
    is_paused: bool
    revision: int
    created_at: float
    anchor_at: float
    """When what is in force was set: intervals that are not aligned count from here."""
    next_tick: float | None
    due_at: float | None
    backfill: bytes | None
    """JSON of ``Pace``, while a back-fill is open."""

    @property
    def schedule(self) -> dict[str, Any]:
        """What is in force, as decoded JSON."""
        return msgspec.json.decode(self.spec, type=dict[str, Any])


class StoredTick(NamedTuple):
    """A tick of a schedule."""

    schedule: str
    at: float
    state: TickState
    kind: str
    """``tick``, ``trigger`` or ``backfill``."""
    decided_at: float
    started_at: float | None
    reason: str | None
    run_id: RunId | None
    run_state: RunState | None
    """Of its run."""

    @property
    def is_running(self) -> bool:
        """Whether it has a run that goes on, or is about to get one."""
        if self.state is TickState.STARTED:
            return self.run_state is RunState.RUNNING
        return self.state is TickState.DUE


class Looked(NamedTuple):
    """A schedule that is to be decided on, with its open ticks."""

    schedule: StoredSchedule
    ticks: list[StoredTick]
    now: float


class Advanced(NamedTuple):
    """What was decided on a schedule, and on the strength of which revision."""

    schedule: StoredSchedule
    verdict: Verdict
    over: Sequence[float]
    """Open ticks whose runs have ended."""


class Promoted(NamedTuple):
    """Ticks of a schedule that have waited and whose turn it is."""

    schedule: StoredSchedule
    ticks: Sequence[float]
    over: Sequence[float]
    """Open ticks whose runs have ended."""
    backfill: bytes | None
    """JSON of the pace of its back-fill from now on."""


class Ready(NamedTuple):
    """A tick for which a run is to be started."""

    schedule: StoredSchedule
    tick: StoredTick


class Turn(NamedTuple):
    """Whether anything is to be done about schedules."""

    due_in: float | None
    """Seconds until the first of them is due; ``None`` when none ever is."""
    is_waiting: bool
    """Whether ticks wait for runs, or in a back-fill."""
    is_ready: bool
    """Whether runs are to be started."""

    @property
    def is_come(self) -> bool:
        """Whether it is to be done now."""
        return self.is_waiting or self.is_ready or (self.due_in is not None and self.due_in <= 0.0)


# --- looking ----------------------------------------------------------------------------------------------------------


def moment(connection: Connection) -> float:
    """Return the time by the clock of the database, which says when ticks are due."""
    found: float = connection.execute(select(now())).scalar_one()
    return found


def get(connection: Connection, name: str) -> StoredSchedule | None:
    """Return a schedule."""
    row = connection.execute(select(schedule).where(schedule.c.name == name)).mappings().one_or_none()
    return StoredSchedule(**row) if row is not None else None


def names(connection: Connection) -> list[str]:
    """Return the names of all schedules."""
    return list(connection.execute(select(schedule.c.name).order_by(schedule.c.name)).scalars())


def page(connection: Connection, *, limit: int, after: str = "") -> list[StoredSchedule]:
    """Return up to *limit* schedules by name, from the one after *after*."""
    query = select(schedule).where(schedule.c.name > after).order_by(schedule.c.name).limit(limit)
    return [StoredSchedule(**row) for row in connection.execute(query).mappings()]


def turn(connection: Connection, shards: Collection[int]) -> Turn:
    """Return whether anything is to be done about schedules of some shards: one statement, as it is asked for ever."""
    # All shards are many parameters, and what a node alone has.
    mine = schedule.c.shard.in_(shards) if len(shards) < SHARDS else true()
    first = select(schedule.c.due_at - now()).where(schedule.c.due_at.is_not(None), mine)
    opened = select(tick.c.schedule).join(schedule, schedule.c.name == tick.c.schedule).where(_is_open(), mine)
    waiting = opened.where(tick.c.state.in_([int(TickState.WAITING), int(TickState.QUEUED)]))
    ready = opened.where(tick.c.state == int(TickState.DUE))
    columns = (first.order_by(schedule.c.due_at).limit(1).scalar_subquery(), waiting.exists(), ready.exists())
    return Turn(*connection.execute(select(*columns)).one())


def overdue(connection: Connection, seconds: float, limit: int) -> list[tuple[str, float]]:
    """Return schedules that no node has looked at so long after they were due, and by how many seconds, worst first."""
    late = now() - schedule.c.due_at
    query = select(schedule.c.name, late.label("late")).where(schedule.c.due_at < now() - seconds)
    return [(row.name, row.late) for row in connection.execute(query.order_by(schedule.c.due_at).limit(limit))]


def due(connection: Connection, shards: Collection[int], limit: int) -> list[Looked]:
    """Return schedules of some shards that are due by the clock of the database, the first ones first."""
    at = moment(connection)
    query = (
        select(schedule)
        .where(schedule.c.due_at.is_not(None), schedule.c.due_at <= at, schedule.c.shard.in_(shards))
        .order_by(schedule.c.due_at)
        .limit(limit)
    )
    return _looked(connection, [StoredSchedule(**row) for row in connection.execute(query).mappings()], at)


def with_waiting(connection: Connection, shards: Collection[int], *, limit: int, after: str) -> list[Looked]:
    """Return schedules of some shards, by name from the one after *after*, that have ticks which wait for others.

    These wait for the runs before them, or in a back-fill.
    """
    waiting = select(tick.c.schedule).where(
        tick.c.state.in_([int(TickState.WAITING), int(TickState.QUEUED)]), _is_open()
    )
    query = select(schedule).where(schedule.c.name.in_(waiting), schedule.c.name > after, schedule.c.shard.in_(shards))
    query = query.order_by(schedule.c.name).limit(limit)
    found = [StoredSchedule(**row) for row in connection.execute(query).mappings()]
    return _looked(connection, found, moment(connection))


def looked(connection: Connection, known: StoredSchedule) -> Looked:
    """Return one schedule with its open ticks."""
    return _looked(connection, [known], moment(connection))[0]


def _looked(connection: Connection, found: list[StoredSchedule], at: float) -> list[Looked]:
    by_name: dict[str, list[StoredTick]] = {each.name: [] for each in found}
    rows = connection.execute(
        _ticks()
        .where(tick.c.schedule.in_(list(by_name)), tick.c.state.in_([int(state) for state in _OPEN]), _is_open())
        .order_by(tick.c.at)
    )
    for row in rows:
        by_name[row.schedule].append(_tick(row))
    return [Looked(each, by_name[each.name], at) for each in found]


def open_ticks(connection: Connection, name: str) -> list[StoredTick]:
    """Return the ticks of a schedule that wait, or have runs that were not seen to end, oldest first."""
    mine = (tick.c.schedule == name) & tick.c.state.in_([int(state) for state in _OPEN]) & _is_open()
    return [_tick(row) for row in connection.execute(_ticks().where(mine).order_by(tick.c.at))]


def ready(connection: Connection, shards: Collection[int], limit: int) -> list[Ready]:
    """Return ticks of some shards for which runs are to be started, the oldest decisions first."""
    columns = [each.label(f"of_{each.name}") for each in schedule.c]
    query = (
        _ticks(*columns)
        .join(schedule, schedule.c.name == tick.c.schedule)
        .where(tick.c.state == int(TickState.DUE), _is_open(), schedule.c.shard.in_(shards))
        .order_by(tick.c.decided_at, tick.c.schedule, tick.c.at)
        .limit(limit)
    )
    found = []
    for row in connection.execute(query):
        of = {each.name: getattr(row, f"of_{each.name}") for each in schedule.c}
        found.append(Ready(StoredSchedule(**of), _tick(row)))
    return found


def tick_at(connection: Connection, name: str, at: float) -> StoredTick | None:
    """Return one tick of a schedule, if it was decided on."""
    row = connection.execute(_ticks().where(tick.c.schedule == name, tick.c.at == at)).one_or_none()
    return _tick(row) if row is not None else None


def last_ticks(connection: Connection, name: str, limit: int) -> list[StoredTick]:
    """Return the last ticks of a schedule that were decided on, newest first."""
    rows = connection.execute(_ticks().where(tick.c.schedule == name).order_by(tick.c.at.desc()).limit(limit))
    return [_tick(row) for row in rows]


def ticks_between(connection: Connection, name: str, first: float, last: float) -> dict[float, TickState]:
    """Return what became of the ticks of a schedule between two times."""
    query = select(tick.c.at, tick.c.state).where(tick.c.schedule == name, tick.c.at >= first, tick.c.at <= last)
    return {row.at: TickState(row.state) for row in connection.execute(query)}


def versions(connection: Connection, name: str) -> list[tuple[float, dict[str, Any]]]:
    """Return since when each schedule was in force that one has had, oldest first."""
    query = select(schedule_version.c.since, schedule_version.c.spec).where(schedule_version.c.schedule == name)
    rows = connection.execute(query.order_by(schedule_version.c.since))
    return [(row.since, msgspec.json.decode(row.spec, type=dict[str, Any])) for row in rows]


def _ticks(*more: Any) -> Any:
    return select(
        tick.c.schedule,
        tick.c.at,
        tick.c.state,
        tick.c.kind,
        tick.c.decided_at,
        tick.c.started_at,
        tick.c.reason,
        tick.c.run_id,
        run.c.state.label("run_state"),
        *more,
    ).select_from(tick.outerjoin(run, run.c.id == tick.c.run_id))


def _tick(row: Row[Any]) -> StoredTick:
    values = {name: getattr(row, name) for name in StoredTick._fields}
    values["state"] = TickState(row.state)
    values["run_state"] = None if row.run_state is None else RunState(row.run_state)
    return StoredTick(**values)


def _is_open() -> Any:
    # Written into the statement: SQLite takes a partial index only if it sees the value.
    return tick.c.state < literal(int(TickState.DONE), literal_execute=True)


# --- what people and files say ----------------------------------------------------------------------------------------


def add(connection: Connection, added: StoredSchedule) -> bool:
    """Store a new schedule, unless there is one of its name; return whether."""
    values = {name: getattr(added, name) for name in StoredSchedule.__dataclass_fields__}
    is_new = insert_new(connection, schedule, values)
    if is_new:
        _note_version(connection, added.name, added.anchor_at, added.spec)
    return is_new


def change(connection: Connection, known: StoredSchedule, **values: Any) -> bool:
    """Change a schedule as it is known; return whether it was still so."""
    statement = update(schedule).where(schedule.c.name == known.name, schedule.c.revision == known.revision)
    changed = connection.execute(statement.values(**values, revision=known.revision + 1)).rowcount > 0
    if changed and "spec" in values and values["spec"] != known.spec:
        _note_version(connection, known.name, values["anchor_at"], values["spec"])
    return changed


def remove(connection: Connection, name: str) -> None:
    """Forget a schedule and its ticks; its runs stay."""
    for table, column in ((tick, tick.c.schedule), (schedule_version, schedule_version.c.schedule)):
        connection.execute(delete(table).where(column == name))
    connection.execute(delete(schedule).where(schedule.c.name == name))


def _note_version(connection: Connection, name: str, since: float, spec: bytes) -> None:
    insert_missing(connection, schedule_version, [{"schedule": name, "since": since, "spec": spec}])


# --- what becomes of ticks --------------------------------------------------------------------------------------------


def advance(connection: Connection, decided: Iterable[Advanced]) -> None:
    """Write what was decided; what is not as it was any more is left alone, and is decided on again."""
    at = moment(connection)
    for each in decided:
        verdict, known = each.verdict, each.schedule
        if not change(connection, known, next_tick=verdict.next_tick, due_at=verdict.due_at):
            continue
        rows = [_row(known.name, decided_tick, "tick", at) for decided_tick in verdict.ticks]
        insert_missing(connection, tick, rows)
        _end(connection, known.name, each.over)


def postpone(connection: Connection, known: Iterable[StoredSchedule], seconds: float) -> None:
    """Look at schedules later, with all the ticks that are due then."""
    at = moment(connection)
    for each in known:
        change(connection, each, due_at=at + seconds)


def add_ticks(connection: Connection, name: str, ticks: Iterable[DecidedTick], kind: str) -> None:
    """Add ticks that are not of the schedule's own time, unless they are there already."""
    at = moment(connection)
    insert_missing(connection, tick, [_row(name, each, kind, at) for each in ticks])


def fill(connection: Connection, name: str, ticks: Sequence[float]) -> None:
    """Let ticks wait for their turn in a back-fill: those that were never decided on, and those that have no run."""
    add_ticks(connection, name, [DecidedTick(at, TickState.WAITING, "back-fill") for at in ticks], "backfill")
    without_run = [int(TickState.SKIPPED), int(TickState.MISSED), int(TickState.FAILED)]
    for at in ticks:
        passed = (tick.c.schedule == name) & (tick.c.at == at) & tick.c.state.in_(without_run)
        values = {"state": int(TickState.WAITING), "kind": "backfill", "reason": "back-fill"}
        connection.execute(update(tick).where(passed).values(**values))


def promote(connection: Connection, promoted: Iterable[Promoted]) -> None:
    """Let runs be started for ticks that have waited, and note that those of others have ended."""
    for known, ticks, over, backfill in promoted:
        if backfill != known.backfill and not change(connection, known, backfill=backfill):
            continue
        _end(connection, known.name, over)
        waited = tick.c.state.in_([int(TickState.WAITING), int(TickState.QUEUED)])
        moved = update(tick).where(tick.c.schedule == known.name, tick.c.at.in_(ticks), waited)
        connection.execute(moved.values(state=int(TickState.DUE)))


def settle(connection: Connection, outcomes: Iterable[Mapping[str, Any]]) -> None:
    """Note what became of ticks for which runs were to be started, by ``schedule`` and ``at``."""
    for outcome in outcomes:
        mine = (tick.c.schedule == outcome["schedule"]) & (tick.c.at == outcome["at"])
        values = {name: value for name, value in outcome.items() if name not in {"schedule", "at"}}
        connection.execute(update(tick).where(mine, tick.c.state == int(TickState.DUE)).values(**values))


def drop_open(connection: Connection, name: str, states: Collection[TickState], reason: str) -> int:
    """Pass over ticks of a schedule that wait; return how many there were."""
    waiting = update(tick).where(tick.c.schedule == name, tick.c.state.in_([int(state) for state in states]))
    return connection.execute(waiting.values(state=int(TickState.SKIPPED), reason=reason)).rowcount


def counts(connection: Connection, name: str) -> dict[TickState, int]:
    """Return how many ticks of the back-fills of a schedule are in each state."""
    query = select(tick.c.state, func.count()).where(tick.c.schedule == name, tick.c.kind == "backfill")
    return {TickState(state): number for state, number in connection.execute(query.group_by(tick.c.state)).all()}


def _end(connection: Connection, name: str, ticks: Sequence[float]) -> None:
    if ticks:
        mine = (tick.c.schedule == name) & tick.c.at.in_(ticks) & (tick.c.state == int(TickState.STARTED))
        connection.execute(update(tick).where(mine).values(state=int(TickState.DONE)))


def _row(name: str, decided: DecidedTick, kind: str, decided_at: float) -> dict[str, Any]:
    return {
        "schedule": name,
        "at": decided.at,
        "state": int(decided.state),
        "kind": kind,
        "decided_at": decided_at,
        "reason": decided.reason,
    }
