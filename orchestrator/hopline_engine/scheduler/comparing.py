"""Memory against rows: what the coordinator believes of its runs and tasks, compared with what is stored.

Memory is ahead of the rows while a commit is under way, so what differs at first sight is only a suspicion. It is
confirmed by a read that comes in order with the commits: taken in the turn of the loop in which memory is looked at, it
sees exactly what memory has decided, and nothing that comes later.
"""

import asyncio
from collections.abc import Collection
from functools import partial
from typing import Any, Final

from hopline_engine.clock import Clock
from hopline_engine.core.live import LiveTask
from hopline_engine.core.model import RunId, RunState, TaskId, TaskState
from hopline_engine.core.shards import shard_of
from hopline_engine.scheduler.coordinator import Coordinator
from hopline_engine.scheduler.resuming import Resumer
from hopline_engine.store import audit
from hopline_engine.store.audit import Audit, Finding, TaskAsStored
from hopline_engine.store.interface import Store

_BY_ITSELF: Final = "the server repairs it by itself within a minute, and its log says how; please report it"

RUN_NOT_IN_MEMORY: Final = Audit(
    name="run-not-in-memory", means="the server does not know of a run that it has to work on", hint=_BY_ITSELF
)
RUN_NOT_IN_STORE: Final = Audit(
    name="run-not-in-store", means="the server works on a run that has ended or is not stored", hint=_BY_ITSELF
)
TASK_DIFFERS: Final = Audit(name="task-differs", means="a task is not stored as the server knows it", hint=_BY_ITSELF)
STALLED_TASK: Final = Audit(
    name="stalled-task", means="the time of a task has come and nothing will move it", hint=_BY_ITSELF
)
LEAKED_PLACE: Final = Audit(
    name="leaked-place", means="a place of a queue is taken by a task that is not being executed", hint=_BY_ITSELF
)
OF_MEMORY: Final = (RUN_NOT_IN_MEMORY, RUN_NOT_IN_STORE, TASK_DIFFERS, STALLED_TASK, LEAKED_PLACE)

STALLED_SECONDS: Final = 5.0
"""How late a task may be: the loop may be busy, and a commit slow."""

TASKS_A_TURN: Final = 1000
"""How many tasks in memory are looked at before the loop may do something else."""


class Comparison:
    """One pass over memory and rows; made anew for each."""

    def __init__(self, store: Store, coordinator: Coordinator, resumer: Resumer, clock: Clock) -> None:
        self._store = store
        self._coordinator = coordinator
        self._resumer = resumer
        self._clock = clock
        self._runs = set(coordinator.runs)
        self._tasks: set[TaskId] = set()
        self.findings: list[Finding] = []

    def see_runs(self, stored: Collection[int]) -> None:
        """Compare runs that are stored as not ended."""
        for number in map(RunId, stored):
            if number not in self._coordinator.runs and number not in self._resumer.left_out:
                self.findings.append(Finding(RUN_NOT_IN_MEMORY, number, {"id": number}))
        self._runs.difference_update(map(RunId, stored))

    def see_tasks(self, stored: Collection[TaskAsStored]) -> None:
        """Compare tasks that are stored."""
        for row in stored:
            self._tasks.add(row.id)
            if row.run_id in self._coordinator.runs:
                found = self._difference(row.id, row.run_id, row.node, row.item, row)
                self.findings.extend([found] if found else ())

    async def see_memory(self, held: Collection[int], pause: float = 0.0) -> None:
        """Compare what is in memory and was not among what was seen: all of that is seen by now.

        Args:
            held: the shards of this node.
            pause: seconds to wait after each turn.
        """
        for number in self._runs.intersection(self._coordinator.runs):
            if shard_of(number) in held:
                self.findings.append(Finding(RUN_NOT_IN_STORE, number, {"id": number}))
        before = self._clock.now() - STALLED_SECONDS
        turn: list[LiveTask] = []
        for run in list(self._coordinator.runs.values()):
            if run.state is not RunState.RUNNING or shard_of(run.id) not in held:
                continue
            for task in [unit for unit in run.units() if isinstance(unit, LiveTask)]:
                turn.append(task)
                if len(turn) == TASKS_A_TURN:
                    await self._look_at_tasks(turn, before)
                    turn.clear()
                    await asyncio.sleep(pause)
        await self._look_at_tasks(turn, before)
        self.findings.extend(self._leaks())

    async def is_so(self, finding: Finding) -> bool:
        """Return whether what was found is no commit under way, nor a run that is just being read.

        A commit that is tried again may have been written the first time, and then the read sees what comes after it,
        too; so memory has to be the same afterwards.
        """
        coordinator, key = self._coordinator, finding.key
        assert isinstance(key, int)
        if finding.audit is RUN_NOT_IN_MEMORY:
            is_unknown = self._is_unknown(RunId(key))
            is_awake = await self._store.execute(partial(audit.is_awake, run_id=RunId(key)))
            return is_awake and is_unknown and self._is_unknown(RunId(key))
        if finding.audit is RUN_NOT_IN_STORE:
            is_running = self._is_running(RunId(key))
            is_live = await self._store.execute(partial(audit.is_live, run_id=RunId(key)))
            return not is_live and is_running and self._is_running(RunId(key))
        if finding.audit is TASK_DIFFERS:
            return await self._differs(finding)
        await self._store.execute(lambda _: None)
        if finding.audit is LEAKED_PLACE:
            return any(leak.key == key for leak in self._leaks())
        task = self.task(finding)
        return task is not None and coordinator.is_stalled(task, self._clock.now() - STALLED_SECONDS)

    def task(self, finding: Finding) -> LiveTask | None:
        """Return the task in memory that something was found about, if it is open."""
        place = finding.evidence
        run = self._coordinator.runs.get(place["run_id"])
        node = run.plan.node(place["node"]) if run is not None and run.state is RunState.RUNNING else None
        if run is None or node is None:
            return None
        unit = run.unit(node, place["item"])
        return unit if isinstance(unit, LiveTask) and unit.id == finding.key else None

    async def _differs(self, finding: Finding) -> bool:
        if finding.evidence["run_id"] not in self._coordinator.runs:
            return False
        believed = _as_stored(self.task(finding))
        stored = await self._store.execute(partial(audit.stored_task, task_id=TaskId(int(finding.key))))
        return believed != stored and believed == _as_stored(self.task(finding))

    def _is_unknown(self, run: RunId) -> bool:
        return run not in self._coordinator.runs and not self._resumer.is_reading

    def _is_running(self, run: RunId) -> bool:
        known = self._coordinator.runs.get(run)
        return known is not None and known.state is RunState.RUNNING

    async def _look_at_tasks(self, tasks: Collection[LiveTask], before: float) -> None:
        unseen = [task for task in tasks if task.is_open and task.stored and task.id not in self._tasks]
        # Those that were added after the rows before them had been read are there by now.
        seen = await self._store.read(partial(audit.known_tasks, ids=[task.id for task in unseen])) if unseen else set()
        for task in unseen:
            if task.id not in seen:
                found = self._difference(task.id, task.run.id, task.node.index, task.item, None)
                self.findings.extend([found] if found else ())
        for task in tasks:
            if task.id in self._tasks and task.is_open and self._coordinator.is_stalled(task, before):
                self.findings.append(Finding(STALLED_TASK, task.id, _evidence(task)))

    def _difference(
        self, task_id: TaskId, run_id: RunId, node: int, item: int, stored: TaskAsStored | None
    ) -> Finding | None:
        place = {"id": task_id, "run_id": run_id, "node": node, "item": item}
        task = self.task(Finding(TASK_DIFFERS, task_id, place))
        believed = _as_stored(task)
        if believed == stored:
            return None
        shown = {
            "stored": stored._asdict() if stored else None,
            "in_memory": believed._asdict() if believed else None,
        }
        return Finding(TASK_DIFFERS, task_id, place | shown)

    def _leaks(self) -> list[Finding]:
        unsent = self._coordinator.unsent()
        if not unsent:
            return []
        leased = {
            task.id
            for run in self._coordinator.runs.values()
            for task in run.units()
            if isinstance(task, LiveTask) and task.state is TaskState.LEASED
        }
        return [Finding(LEAKED_PLACE, task, {"id": task}) for task in unsent - leased]


def _as_stored(task: LiveTask | None) -> TaskAsStored | None:
    if task is None:
        return None
    return TaskAsStored(task.id, task.run.id, task.node.index, task.item, int(task.state), task.attempt)


def _evidence(task: LiveTask) -> dict[str, Any]:
    row = _as_stored(task)
    assert row is not None
    times = {"schedule_time": task.schedule_time, "deadline_time": task.deadline_time, "leased_at": task.leased_at}
    return row._asdict() | times
