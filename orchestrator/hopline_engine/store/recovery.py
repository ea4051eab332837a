"""What an engine reads when it takes over: the runs that have not ended, and the last ids that were given out."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy import CTE, Connection, func, select

from hopline_engine.core.live import StoredTask
from hopline_engine.core.model import RunAdded, RunId, RunState, StepEnded, TaskId
from hopline_engine.core.shards import SHARDS
from hopline_engine.store import steps, tasks
from hopline_engine.store.parked import is_parked
from hopline_engine.store.runs import in_state
from hopline_engine.store.tables import run, step_run, task

_RUN: Final = [run.c[name] for name in RunAdded._fields]

_IS_LIVE: Final = in_state(RunState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A run that has not ended, with all that is stored of it."""

    run: RunAdded
    steps: list[StepEnded]
    tasks: list[StoredTask]
    paused_at: float | None = None
    ending: str | None = None


class LastIds(NamedTuple):
    """The highest ids in the store; 0 where there is none."""

    run: RunId
    task: TaskId


def live_runs(
    connection: Connection,
    *,
    after: RunId | None = None,
    limit: int,
    roots: Collection[RunId] | None = None,
    shards: Collection[int] = range(SHARDS),
    only_awake: bool = False,
) -> list[StoredRun]:
    """Return up to *limit* runs that have not ended, by id, from the one after *after*.

    With *roots*, only these runs and the runs of sub-workflows below them. With less than all shards, only their runs:
    those of others are passed over in the index of live runs. With *only_awake*, none that is parked.
    """
    following = run.c.id > (after or 0)
    if len(shards) < SHARDS:
        following &= (run.c.id % SHARDS).in_(shards)
    if roots is not None:
        following &= run.c.id.in_(select(_families_of(roots).c.id))
    if only_awake:
        following &= ~is_parked(run.c.id)
    query = select(*_RUN, run.c.paused_at, run.c.ending).where(_IS_LIVE, following).order_by(run.c.id).limit(limit)
    runs, moved = [], {}
    for row in connection.execute(query):
        runs.append(RunAdded._make(row[:-2]))
        moved[runs[-1].id] = (row.paused_at, row.ending)
    if not runs:
        return []
    among = select(run.c.id).where(_IS_LIVE, following, run.c.id <= runs[-1].id)
    steps_of: dict[RunId, list[StepEnded]] = defaultdict(list)
    for ended in map(StepEnded._make, connection.execute(select(*steps.COLUMNS).where(step_run.c.run_id.in_(among)))):
        steps_of[ended.run_id].append(ended)
    tasks_of: dict[RunId, list[StoredTask]] = defaultdict(list)
    for open_task in map(StoredTask._make, connection.execute(select(*tasks.COLUMNS).where(task.c.run_id.in_(among)))):
        tasks_of[open_task.run_id].append(open_task)
    return [
        StoredRun(
            run=each,
            steps=steps_of[each.id],
            tasks=tasks_of[each.id],
            paused_at=moved[each.id][0],
            ending=moved[each.id][1],
        )
        for each in runs
    ]


class LiveChild(NamedTuple):
    """A run of a sub-workflow that has not ended, by the step run that it is the execution of."""

    id: RunId
    parent_id: RunId
    node: int
    item: int


def live_families(connection: Connection, *, after: RunId, limit: int) -> list[tuple[StoredRun, list[LiveChild]]]:
    """Return up to *limit* runs that have not ended, by id, from the one after *after*, each with its live sub-runs."""
    runs = live_runs(connection, after=after, limit=limit)
    below: dict[RunId, list[LiveChild]] = defaultdict(list)
    if runs:
        columns = (run.c.id, run.c.parent_id, run.c.parent_node, run.c.parent_item)
        among = run.c.parent_id.between(runs[0].run.id, runs[-1].run.id)
        for child in map(LiveChild._make, connection.execute(select(*columns).where(_IS_LIVE, among))):
            below[child.parent_id].append(child)
    return [(each, below[each.run.id]) for each in runs]


def _families_of(roots: Collection[RunId]) -> CTE:
    """Return the ids of runs and of all runs of sub-workflows below them."""
    family = select(run.c.id).where(run.c.id.in_(roots)).cte("family", recursive=True)
    return family.union_all(select(run.c.id).where(run.c.parent_id == family.c.id))


def family(connection: Connection, run_id: RunId) -> list[RunId]:
    """Return a run, the runs above it and all below those, whatever their states; the one that was started first."""
    root = run_id
    while (above := connection.execute(select(run.c.parent_id).where(run.c.id == root)).scalar()) is not None:
        root = RunId(above)
    ids = connection.execute(select(_families_of([root]).c.id)).scalars()
    return [root, *(RunId(number) for number in ids if number != root)]


def last_ids(connection: Connection) -> LastIds:
    """Return the ids after which new ones may be given out.

    Ids of rows that are gone (tasks of ended steps, the newest runs after retention) may lie above them.
    """
    run_id = connection.execute(select(func.max(run.c.id))).scalar() or 0
    task_id = connection.execute(select(func.max(task.c.id))).scalar() or 0
    return LastIds(RunId(run_id), TaskId(task_id))
