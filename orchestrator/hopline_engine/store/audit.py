"""What must always be true of the rows, as queries that find where it is not.

Each audit goes through one table in slices, by key, so that it takes little at a time however much there is. All that
a slice looks at is one state of the store, and a commit is whole in it or not there: what is found is no half-written
change. Nothing is repaired here.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, and_, case, exists, func, or_, select, true

from hopline_engine.core.model import UNDER_WAY, WHOLE, Digest, RunId, RunState, StepState, TaskId, TaskState
from hopline_engine.core.shards import SHARDS
from hopline_engine.store.dialect import now
from hopline_engine.store.parked import is_parked
from hopline_engine.store.runs import in_state
from hopline_engine.store.tables import attempt, node, queue, queue_share, run, shard, step_run, task


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """Something that must be true."""

    name: str
    means: str
    """What it means that something was found."""
    hint: str
    """What to do about it."""


class Finding(NamedTuple):
    """Where it is not."""

    audit: Audit
    key: int | str
    """Number of the task or run, or name of the node or queue."""
    evidence: Mapping[str, Any]
    """The row, or the parts of rows that do not fit each other."""


class Slice(NamedTuple):
    """What was found in one part of a table."""

    keys: list[int]
    """Of the rows that were looked at; the next slice goes on at the last one. None: there is no more."""
    findings: list[Finding]


class TaskSlice(NamedTuple):
    """What was found in one part of the tasks."""

    rows: "list[TaskAsStored]"
    findings: list[Finding]


class RunEnd(NamedTuple):
    """What a run that has ended says of itself, and what its steps say."""

    id: RunId
    public_id: str
    state: str
    digest: Digest
    steps_ended: int
    not_succeeded: int
    """Of its steps, without those that were skipped."""


class HistorySlice(NamedTuple):
    """What was found in one part of all runs."""

    keys: list[int]
    findings: list[Finding]
    ends: list[RunEnd]
    """To be compared with the definitions."""


class TaskAsStored(NamedTuple):
    """As much of a task as memory is compared with."""

    id: TaskId
    run_id: RunId
    node: int
    item: int
    state: int
    attempt: int


BY_ITSELF: Final = "a server repairs it by itself within a minute; without one: hopline serve"
_HISTORY: Final = "nothing repairs history: look for what wrote to the store besides hopline, or restore a backup"

ORPHAN_TASK: Final = Audit(
    name="orphan-task", means="a task belongs to a run that has ended or does not exist", hint=BY_ITSELF
)
TASK_OF_ENDED_STEP: Final = Audit(
    name="task-of-ended-step", means="a step that has ended still has a task", hint=BY_ITSELF
)
LEASE_OF_NOBODY: Final = Audit(
    name="lease-of-nobody", means="a task is leased by a node that does not exist any more", hint=BY_ITSELF
)
ENDLESS_WAIT: Final = Audit(
    name="endless-wait",
    means="a task waits for a callback without an end",
    hint="cancel the run, or send the callback; then: hopline runs retry RUN",
)
ATTEMPT_NUMBERS: Final = Audit(
    name="attempt-numbers", means="the attempts of a step are not numbered 1 to n without a gap", hint=_HISTORY
)
STUCK_RUN: Final = Audit(
    name="stuck-run", means="a run is running and nothing of it is open, so nothing will ever happen", hint=BY_ITSELF
)
ORPHAN_SUB_RUN: Final = Audit(
    name="orphan-sub-run", means="a run goes on although the run that it is a step of has ended", hint=BY_ITSELF
)
RUN_AGAINST_STEPS: Final = Audit(
    name="run-against-steps", means="the state of a run that has ended is not that of its steps", hint=_HISTORY
)
SILENT_NODE: Final = Audit(
    name="silent-node",
    means="a node has not shown for a while that it is alive",
    hint="another node takes over its runs; start one if there is none: hopline serve",
)
SHARD_OF_NOBODY: Final = Audit(
    name="shard-of-nobody",
    means="a part of the runs is worked on by no node",
    hint="a node takes it at its next beat; start one if there is none: hopline serve",
)
QUEUE_OVER_LIMIT: Final = Audit(
    name="queue-over-limit",
    means="nodes share more places of a queue than it has",
    hint="places come back as tasks end; if it stays: hopline queues show NAME",
)

_UNDER_WAY: Final = sorted(state.value for state in UNDER_WAY)
_IS_LIVE: Final = in_state(RunState.RUNNING)

_Query = Select[*tuple[Any, ...]]
_Queries = tuple[tuple[Audit, Callable[[], _Query]], ...]

_PLACE: Final = (task.c.id, task.c.run_id, task.c.node, task.c.item, task.c.state, task.c.attempt)


def tasks(
    connection: Connection,
    *,
    after: int,
    limit: int,
    shards: Collection[int] = range(SHARDS),
    only_awake: bool = False,
) -> TaskSlice:
    """Look at up to *limit* tasks, from the one after *after*; only at those in *shards*, and of runs not parked."""
    which = _in(task.c.run_id, shards)
    if only_awake:
        which = and_(which, ~is_parked(task.c.run_id))
    wanted = select(*_PLACE).where(task.c.id > after, which).order_by(task.c.id).limit(limit)
    rows = [TaskAsStored._make(row) for row in connection.execute(wanted)]
    if not rows:
        return TaskSlice([], [])
    among = and_(task.c.id.between(rows[0].id, rows[-1].id), which)
    return TaskSlice(rows, _look(connection, _TASK_QUERIES, among))


def live_runs(
    connection: Connection,
    *,
    after: int,
    limit: int,
    shards: Collection[int] = range(SHARDS),
    only_awake: bool = False,
) -> Slice:
    """Look at up to *limit* runs that have not ended, from the one after *after*; only at those in *shards*.

    With *only_awake*, not at those that are parked.
    """
    which = and_(_IS_LIVE, _in(run.c.id, shards))
    if only_awake:
        which = and_(which, ~is_parked(run.c.id))
    wanted = select(run.c.id).where(run.c.id > after, which).order_by(run.c.id).limit(limit)
    ids = list(connection.execute(wanted).scalars())
    if not ids:
        return Slice([], [])
    return Slice(ids, _look(connection, _LIVE_RUN_QUERIES, and_(run.c.id.between(ids[0], ids[-1]), which)))


def history(connection: Connection, *, before: int | None, limit: int) -> HistorySlice:
    """Look at up to *limit* runs with all that is stored of them, newest first, from the one before *before*."""
    newest = select(run.c.id).order_by(run.c.id.desc()).limit(limit)
    ids = list(connection.execute(newest if before is None else newest.where(run.c.id < before)).scalars())
    if not ids:
        return HistorySlice([], [], [])
    lowest, highest = ids[-1], ids[0]
    return HistorySlice(ids, _attempt_gaps(connection, lowest, highest), _ends(connection, lowest, highest))


def against_steps(end: RunEnd, size: int, harmless: int = 0) -> Finding | None:
    """Return what is wrong with the end of a run whose definition has *size* steps; *harmless* ones may fail."""
    has_bad = end.state == RunState.SUCCEEDED and end.not_succeeded > harmless
    if end.steps_ended == size and not has_bad:
        return None
    return Finding(RUN_AGAINST_STEPS, end.id, end._asdict() | {"steps": size})


def node_rows(connection: Connection, *, silence: float) -> list[Finding]:
    """Look at all nodes, shards and shares of queues; *silence* is how long a node may not be heard of, in seconds."""
    silent = select(node.c.id, node.c.url, (now() - node.c.heartbeat_at).label("silent_seconds"))
    free = select(shard.c.id).where(shard.c.node.is_(None) | ~exists().where(node.c.id == shard.c.node))
    shared = (
        select(queue.c.name, queue.c.max_concurrent_dispatches, func.sum(queue_share.c.slots).label("slots"))
        .join(queue_share, queue_share.c.queue == queue.c.name)
        .group_by(queue.c.name, queue.c.max_concurrent_dispatches)
        .having(func.sum(queue_share.c.slots) > queue.c.max_concurrent_dispatches)
    )
    return [
        *_found(connection, SILENT_NODE, silent.where(node.c.heartbeat_at < now() - silence).order_by(node.c.id)),
        *_found(connection, SHARD_OF_NOBODY, free.order_by(shard.c.id)),
        *_found(connection, QUEUE_OVER_LIMIT, shared),
    ]


def known_tasks(connection: Connection, *, ids: Collection[TaskId]) -> set[TaskId]:
    """Return those of *ids* that are stored."""
    return {TaskId(number) for number in connection.execute(select(task.c.id).where(task.c.id.in_(ids))).scalars()}


def stored_task(connection: Connection, task_id: TaskId) -> TaskAsStored | None:
    """Return a task, if it is there."""
    row = connection.execute(select(*_PLACE).where(task.c.id == task_id)).one_or_none()
    return None if row is None else TaskAsStored._make(row)


def is_awake(connection: Connection, run_id: RunId) -> bool:
    """Return whether a run is there, has not ended and is not parked."""
    awake = select(run.c.id).where(run.c.id == run_id, _IS_LIVE, ~is_parked(run.c.id))
    return connection.execute(awake).one_or_none() is not None


def is_live(connection: Connection, run_id: RunId) -> bool:
    """Return whether a run is there and has not ended."""
    return connection.execute(select(run.c.id).where(run.c.id == run_id, _IS_LIVE)).one_or_none() is not None


def _look(connection: Connection, queries: _Queries, among: ColumnElement[bool]) -> list[Finding]:
    return [finding for audit, query in queries for finding in _found(connection, audit, query().where(among))]


def _found(connection: Connection, audit: Audit, query: _Query) -> Iterator[Finding]:
    for row in connection.execute(query).mappings():
        key = next(iter(row.values()))
        yield Finding(audit, key, dict(row))


def _in(run_id: ColumnElement[int], shards: Collection[int]) -> ColumnElement[bool]:
    return true() if len(shards) == SHARDS else (run_id % SHARDS).in_(shards)


def _orphan_tasks() -> _Query:
    whole = select(*_PLACE, run.c.public_id, run.c.state.label("run_state"))
    return whole.outerjoin(run, run.c.id == task.c.run_id).where(or_(run.c.id.is_(None), ~_IS_LIVE))


def _tasks_of_ended_steps() -> _Query:
    same = and_(step_run.c.run_id == task.c.run_id, step_run.c.node == task.c.node, step_run.c.item == task.c.item)
    return select(*_PLACE, step_run.c.state.label("step_state")).join(step_run, same)


def _leases_of_nobody() -> _Query:
    is_leased = task.c.state == TaskState.LEASED.value
    return select(*_PLACE, task.c.epoch, task.c.leased_at).where(
        is_leased, ~exists().where(node.c.epoch == task.c.epoch)
    )


def _endless_waits() -> _Query:
    return select(*_PLACE).where(task.c.state == TaskState.ACCEPTED.value, task.c.deadline_time.is_(None))


def _tasks_with_gaps() -> _Query:
    """Return the tasks that have another number of attempts behind them than they say."""
    over = select(func.count()).select_from(attempt)
    recorded = over.where(
        attempt.c.run_id == task.c.run_id, attempt.c.node == task.c.node, attempt.c.item == task.c.item
    ).scalar_subquery()
    expected = task.c.attempt - case((task.c.state.in_(_UNDER_WAY), 1), else_=0)
    return select(*_PLACE, recorded.label("recorded")).where(recorded != expected)


def _stuck_runs() -> _Query:
    below = run.alias("below")
    is_below = and_(below.c.parent_id == run.c.id, below.c.state == RunState.RUNNING.value)
    return select(run.c.id, run.c.public_id, run.c.workflow, run.c.created_at).where(
        ~exists().where(task.c.run_id == run.c.id), ~exists().where(is_below)
    )


def _orphan_sub_runs() -> _Query:
    """Return the runs that nobody waits for, but for those that were cancelled and still close."""
    above = run.alias("above")
    is_above = and_(above.c.id == run.c.parent_id, above.c.state == RunState.RUNNING.value)
    return select(run.c.id, run.c.public_id, run.c.workflow, run.c.parent_id).where(
        run.c.parent_id.is_not(None), run.c.ending.is_(None), ~exists().where(is_above)
    )


def _attempt_gaps(connection: Connection, lowest: int, highest: int) -> list[Finding]:
    count, last = func.count(), func.max(attempt.c.attempt)
    step = (attempt.c.run_id, attempt.c.node, attempt.c.item)
    query = select(*step, count.label("recorded"), last.label("last")).group_by(*step).having(count != last)
    return list(_found(connection, ATTEMPT_NUMBERS, query.where(attempt.c.run_id.between(lowest, highest))))


def _ends(connection: Connection, lowest: int, highest: int) -> list[RunEnd]:
    head = (run.c.id, run.c.public_id, run.c.state, run.c.digest)
    well = (StepState.SUCCEEDED.value, StepState.SKIPPED.value)
    bad = func.count(case((step_run.c.state.not_in(well), 1)))
    query = (
        select(*head, func.count(step_run.c.node), bad)
        .outerjoin(step_run, and_(step_run.c.run_id == run.c.id, step_run.c.item == WHOLE, step_run.c.node >= 0))
        .where(run.c.id.between(lowest, highest), ~_IS_LIVE)
        .group_by(*head)
    )
    return [RunEnd._make(row) for row in connection.execute(query)]


_TASK_QUERIES: Final[_Queries] = (
    (ORPHAN_TASK, _orphan_tasks),
    (TASK_OF_ENDED_STEP, _tasks_of_ended_steps),
    (LEASE_OF_NOBODY, _leases_of_nobody),
    (ENDLESS_WAIT, _endless_waits),
    (ATTEMPT_NUMBERS, _tasks_with_gaps),
)
_LIVE_RUN_QUERIES: Final[_Queries] = ((STUCK_RUN, _stuck_runs), (ORPHAN_SUB_RUN, _orphan_sub_runs))

OF_LIVE_RUNS: Final = tuple(audit for audit, _ in _LIVE_RUN_QUERIES)
OF_ROWS: Final = (*OF_LIVE_RUNS, *(audit for audit, _ in _TASK_QUERIES), RUN_AGAINST_STEPS)
OF_NODES: Final = (SILENT_NODE, SHARD_OF_NOBODY, QUEUE_OVER_LIMIT)
