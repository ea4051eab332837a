"""From a decision to its effects: what is due is queued, what may be sent is leased, one commit makes it durable.

Effects — requests, answers to callers, news for watchers — are released only after that commit. If the store refuses
it, none of them happens, and its runs are forgotten until they are read again.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from hopline_engine.core import advance
from hopline_engine.core.changes import Changes
from hopline_engine.core.decision import Decision
from hopline_engine.core.families import families
from hopline_engine.core.live import LiveRun, LiveTask
from hopline_engine.core.model import RunId, RunState, TaskState
from hopline_engine.core.shards import shard_of
from hopline_engine.core.waits import NEVER
from hopline_engine.queue.admission import Admission
from hopline_engine.scheduler.calling_off import CallingOff
from hopline_engine.scheduler.listeners import Listeners
from hopline_engine.scheduler.sending import Sending
from hopline_engine.scheduler.timers import Timers
from hopline_engine.store.errors import OwnershipLostError

log = logging.getLogger(__name__)


class Commits(Protocol):
    """Makes changes durable; see ``store.interface``."""

    def submit(self, changes: Changes, done: Callable[[BaseException | None], None]) -> None:
        """Write *changes* in one transaction and call *done* on the loop afterwards."""
        ...


class Committing:
    """Makes what the coordinator decides durable, and lets its effects happen then."""

    def __init__(
        self,
        *,
        commits: Commits,
        runs: dict[RunId, LiveRun],
        admission: Admission,
        sending: Sending,
        timers: Timers,
        calling_off: CallingOff,
        epoch: int,
        listeners: Listeners,
        look_again: Callable[[], None],
    ) -> None:
        """Make it.

        Args:
            commits: where decisions become durable.
            runs: the live ones; those that begin and end are put in and taken out.
            admission: says which due tasks may be sent.
            sending: sends them.
            timers: of what has to wait for a time.
            calling_off: tells targets of attempts that were cancelled.
            epoch: of this engine's ownership of its runs; written into each lease.
            listeners: told of what is durable.
            look_again: called when a queue may have tokens again.
        """
        self.held_back: frozenset[int] = frozenset()
        """Shards that are to go to another node: nothing more of their runs is sent."""
        self._commits = commits
        self._runs = runs
        self._admission = admission
        self._sending = sending
        self._timers = timers
        self._calling_off = calling_off
        self._epoch = epoch
        self._listeners = listeners
        self._look_again = look_again
        self._loop = asyncio.get_running_loop()
        self._token_timer: asyncio.TimerHandle | None = None

    def durably(self, decision: Decision) -> "asyncio.Future[None]":
        """Commit a decision that somebody waits for; the future is done when it is durable."""
        durable: asyncio.Future[None] = self._loop.create_future()
        self.commit(decision, durable)
        return durable

    def commit(self, decision: Decision, durable: "asyncio.Future[None] | None" = None) -> None:
        """Queue what is due, lease what may be sent, and hand all of it to the store as one transaction."""
        self._queue(decision)
        admitted = self._admission.admit(decision.now) if self._sending.is_on else []
        leased = [task for task in admitted if isinstance(task, LiveTask)]
        for look in self._listeners.admitted:
            look(decision.now)
        for task in leased:
            advance.lease(task, decision, self._epoch)
        for task in (*decision.opened, *decision.rescheduled):
            self._watch_deadline(task)
        self._watch_tokens(decision.now)
        decision.rows.queues_moved += self._admission.moved_queues(admitted)
        if len(admitted) > len(leased):
            self._listeners.others_admitted([task for task in admitted if not isinstance(task, LiveTask)])
        changes = decision.seal()
        if decision.touched or leased or changes.queues_moved or changes.events_added or changes.are_of_parking:
            self._commits.submit(changes, lambda error: self._settle(decision, leased, durable, error))
        elif durable is not None:
            durable.set_result(None)

    def submit(self, changes: Changes) -> "asyncio.Future[None]":
        """Write rows of runs that are not among the live ones; the future is done when they are durable."""
        durable: asyncio.Future[None] = self._loop.create_future()
        self._commits.submit(changes, partial(_tell, durable))
        return durable

    def _queue(self, decision: Decision) -> None:
        for run in decision.began:
            self._runs[run.id] = run
            if run.plan.deadline is not None:
                self._timers.add(run.created_at + run.plan.deadline, run)
        for task in decision.closed.values():
            self._admission.withdraw(task)
        self._free_keys(decision)
        for task in (*decision.opened, *decision.rescheduled):
            if task.id in decision.closed:
                continue
            if task.schedule_time > decision.now or task.state is TaskState.PARKED:
                if task.schedule_time < NEVER:
                    self._timers.add(task.schedule_time, task)
            elif not task.run.is_held and (not self.held_back or shard_of(task.run.id) not in self.held_back):
                self._admission.offer(task)
        for task in decision.accepted:
            self._watch_deadline(task)

    def _free_keys(self, decision: Decision) -> None:
        """Let others have the keys of tasks whose attempts are over, or that are not to be sent now."""
        if not decision.rows.keys_released:
            return
        released = {row.task_id for row in decision.rows.keys_released}
        for task in (*decision.closed.values(), *decision.rescheduled):
            if task.key is not None and task.id in released:
                self._admission.release_key(task)

    def _watch_deadline(self, task: LiveTask) -> None:
        """Set a timer for the deadline of a task that waits; a leased one is watched by its request's timeout."""
        if task.deadline_time is not None and task.state is not TaskState.LEASED and not task.has_alarm:
            task.has_alarm = True
            self._timers.add(task.deadline_time, task)

    def _watch_tokens(self, now: float) -> None:
        at = self._admission.next_token_at()
        if self._token_timer is not None:
            self._token_timer.cancel()
            self._token_timer = None
        if at is not None and self._sending.is_on:
            self._token_timer = self._loop.call_later(min(max(0.001, at - now), 60.0), self._look_again)

    def _settle(
        self,
        decision: Decision,
        leased: list[LiveTask],
        durable: "asyncio.Future[None] | None",
        error: BaseException | None,
    ) -> None:
        """Let the effects of a decision happen, now that it is durable; none of them if it was refused."""
        if error is None:
            self._release(decision, leased)
        else:
            self._give_up(decision, leased, error)
        if durable is not None:
            _tell(durable, error)

    def _release(self, decision: Decision, leased: list[LiveTask]) -> None:
        self._sending.send(leased)
        if decision.rows.definitions_added and self._sending.pinning is not None:
            self._sending.pinning.stored(decision.rows.definitions_added)
        for run in decision.ended:
            self._runs.pop(run.id, None)
        for task in decision.closed.values():
            self._sending.cut_off(task)
        for task in decision.called_off:
            self._calling_off.begin(task)
        for run, nodes in decision.touched.items():
            self._listeners.changed(run, nodes)
        if decision.awaiting:
            self._listeners.awaiting(decision.awaiting)
        if decision.in_turn or (decision.ended and any(run.plan.turn is not None for run in decision.ended)):
            self._listeners.turns(decision.in_turn)
        if decision.asking:
            self._listeners.asking(decision.asking)

    def _give_up(self, decision: Decision, leased: list[LiveTask], error: BaseException) -> None:
        """Forget the runs of a decision that the store refused: memory is ahead of it, and the rows are right."""
        if isinstance(error, OwnershipLostError):
            self._listeners.lost(error)
        else:
            log.error("a decision was not stored; its runs are read again", exc_info=error)
        for task in leased:
            self._sending.give_back(task)
        for task in decision.closed.values():
            self._sending.cut_off(task)
        self.forget(decision.touched)

    def forget(self, runs: Iterable[LiveRun]) -> None:
        """Drop runs, with those above and below them, until they are resumed from rows."""
        for root, family in families(runs).items():
            for run in family:
                self.leave(run)
            self._listeners.forgotten(root.id)

    def leave(self, run: LiveRun, *, keeps_keys: bool = True) -> None:
        """Have nothing of a run in memory; unless *keeps_keys*, neither the keys of what waits for callbacks."""
        run.state = RunState.CANCELLED  # in memory only: its timers and answers are ignored from here on
        self._runs.pop(run.id, None)
        for unit in run.units():
            if isinstance(unit, LiveTask):
                self._admission.withdraw(unit)
                # One that waits for its callback is worked on whatever memory knows of it.
                if unit.key is not None and (unit.state is not TaskState.ACCEPTED or not keeps_keys):
                    self._admission.release_key(unit)
                self._sending.cut_off(unit)

    async def stop(self) -> None:
        """Look for tokens no more, and tell no target more."""
        if self._token_timer is not None:
            self._token_timer.cancel()
        await self._calling_off.stop()


def _tell(waiting: "asyncio.Future[None]", error: BaseException | None) -> None:
    """Tell whoever waits for a commit what became of it, unless they have gone."""
    if waiting.cancelled():
        return
    if error is None:
        waiting.set_result(None)
    else:
        waiting.set_exception(error)
