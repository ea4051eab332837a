"""The one place where a run changes.

Events come in (a run is started, a request is answered, a timer fires, someone cancels), ``core.advance`` decides,
and one commit makes the decision durable together with the leases of what is sent next. Effects — requests,
answers to callers, news for watchers — are released only after that commit.

Everything here runs on one asyncio loop, and no decision awaits anything, so decisions never interleave.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import assert_never

from hopline_engine.clock import Clock
from hopline_engine.core import advance, records, waiting
from hopline_engine.core.decision import Decision, Ids, Limits
from hopline_engine.core.live import LiveRun, LiveTask, Past
from hopline_engine.core.model import (
    ApprovalDecided,
    AttemptState,
    EventAdded,
    RunId,
    RunParked,
    RunWoken,
    TaskId,
    TaskState,
)
from hopline_engine.core.retry import Failure
from hopline_engine.core.shards import shard_of
from hopline_engine.queue.admission import Admission
from hopline_engine.queue.dispatcher import Dispatcher
from hopline_engine.queue.outcomes import Accepted, Failed, Lost, Outcome, Succeeded, Unsendable, Unserved
from hopline_engine.queue.workers import Worker
from hopline_engine.scheduler.calling_off import CallingOff
from hopline_engine.scheduler.committing import Commits, Committing
from hopline_engine.scheduler.listeners import Listeners
from hopline_engine.scheduler.pinning import Pinned
from hopline_engine.scheduler.sending import Sending
from hopline_engine.scheduler.timers import Timed, Timers

log = logging.getLogger(__name__)


class Coordinator:
    """Owns the live runs and moves them."""

    def __init__(
        self,
        *,
        commits: Commits,
        admission: Admission,
        dispatcher: Dispatcher,
        clock: Clock,
        ids: Ids,
        limits: Limits,
        epoch: int,
        on_change: Callable[[LiveRun, set[int]], None],
    ) -> None:
        """Make a coordinator.

        Args:
            commits: where decisions become durable.
            admission: says which due tasks may be sent.
            dispatcher: sends them.
            clock: time and randomness for decisions.
            ids: numbers for new runs and tasks.
            limits: the engine's own bounds.
            epoch: of this engine's ownership of its runs; written into each lease.
            on_change: told of each run, and its steps, that a commit changed.
        """
        self.runs: dict[RunId, LiveRun] = {}
        self.admission = admission
        self.listeners = Listeners(on_change)
        self.runs_url = ""
        """Where people look at runs: before the id of one."""
        self._clock = clock
        self.ids = ids
        self._limits = limits
        self.timers = Timers(clock, self.wake)
        self.sending = Sending(dispatcher, admission, self._on_answers, self.look_again)
        self.committing = Committing(
            commits=commits,
            runs=self.runs,
            admission=admission,
            sending=self.sending,
            timers=self.timers,
            calling_off=CallingOff(dispatcher),
            epoch=epoch,
            listeners=self.listeners,
            look_again=self.look_again,
        )
        self._commit = self.committing.commit
        self._durably = self.committing.durably

    # --- events -----------------------------------------------------------------------------------------------------

    def start(
        self,
        run: LiveRun,
        *,
        idempotency_key: str | None = None,
        retry_of: RunId | None = None,
        fork_of: RunId | None = None,
        past: Past | None = None,
    ) -> "asyncio.Future[None]":
        """Begin a new run; the future is done when the run is durable."""
        decision = self._decision()
        records.record_run(run, decision, idempotency_key=idempotency_key, retry_of=retry_of, fork_of=fork_of)
        if past is not None:
            decision.rows.steps_ended += past.steps
        advance.begin(run, decision, past)
        return self._durably(decision)

    def resume(
        self, runs: Iterable[tuple[LiveRun, Past]], reason: str, *, blame: bool, woken: Iterable[RunId] = ()
    ) -> "asyncio.Future[None]":
        """Take up stored runs, parents before their sub-runs.

        What had been sent is lost for *reason*; *blame* says whether the steps may be to blame for that. Those that
        are *woken* were parked.
        """
        decision = self._decision()
        decision.rows.runs_woken += map(RunWoken, sorted(woken))
        pasts = list(runs)
        for run, past in pasts:
            decision.past[run.id] = past
        for run, past in pasts:
            advance.begin(run, decision, past)
        tasks = [unit for run, _ in pasts for unit in run.units() if isinstance(unit, LiveTask) and unit.stored]
        for task in tasks:
            if task.state is TaskState.LEASED:
                advance.lose(task, decision, reason, blame=blame)
            elif task.state is TaskState.ACCEPTED:
                decision.accepted.append(task)
                if task.key is not None:
                    self.admission.hold_key(task)
            else:
                decision.rescheduled.append(task)
                if task.key is not None:
                    decision.rows.release_key(task.id)
                _note_wait(task, decision)
        if any(task.key is not None for task in decision.rescheduled):  # of one key, the first to be due is the first
            decision.rescheduled.sort(key=lambda task: task.schedule_time)
        return self._durably(decision)

    def cancel(self, run: LiveRun) -> "asyncio.Future[None]":
        """End a run now; requests in flight are cut off."""
        decision = self._decision()
        advance.cancel(run, decision)
        return self._durably(decision)

    def pause(self, run: LiveRun) -> "asyncio.Future[None]":
        """Send nothing more of a run; what is in flight is answered as ever."""
        decision = self._decision()
        for task in advance.pause(run, decision):
            self.admission.withdraw(task)
        return self._durably(decision)

    def unpause(self, run: LiveRun) -> "asyncio.Future[None]":
        """Send again what a paused run holds back."""
        decision = self._decision()
        advance.resume(run, decision)
        return self._durably(decision)

    def now(self) -> float:
        """Return the time that decisions are made at."""
        return self._clock.now()

    def call_back(self, task: LiveTask, outcome: Succeeded | Failed) -> "asyncio.Future[None]":
        """Apply the callback of a step that answered 202."""
        decision = self._decision()
        self._decide(task, outcome, decision)
        return self._durably(decision)

    def park(self, families: Iterable[tuple[Collection[LiveRun], float]]) -> "asyncio.Future[None]":
        """Let go of runs that only wait, those above and below each other together, each with the time of its waking.

        From now on memory has nothing of them. If this is refused, they have to be read again.
        """
        decision = self._decision()
        for family, wake_at in families:
            for run in family:
                decision.rows.runs_parked.append(RunParked(run.id, wake_at if run.parent is None else None))
                self.committing.leave(run)
        return self._durably(decision)

    def let_go_of_timers(self) -> None:
        """Keep nothing of runs that left memory, which have timers that are far ahead."""
        self.timers.sweep()

    def emit(self, event: EventAdded, begun: Iterable[tuple[LiveRun, str]]) -> "asyncio.Future[None]":
        """Keep an event and begin the runs that it starts, each with its idempotency key: all of that, or nothing."""
        decision = self._decision()
        decision.rows.events_added.append(event)
        for run, key in begun:
            records.record_run(run, decision, idempotency_key=key)
            advance.begin(run, decision)
        return self._durably(decision)

    def fulfil(self, task: LiveTask, result: bytes) -> "asyncio.Future[None]":
        """End a parked task with what it waited for."""
        decision = self._decision()
        waiting.fulfil(task, result, decision)
        return self._durably(decision)

    def decide(self, task: LiveTask, answer: ApprovalDecided, result: bytes) -> "asyncio.Future[None]":
        """End an approval with what a person decided."""
        decision = self._decision()
        waiting.decide(task, answer, result, decision)
        return self._durably(decision)

    def give_up(self, task: LiveTask, failure: Failure) -> "asyncio.Future[None]":
        """End a parked task without what it waited for."""
        decision = self._decision()
        waiting.give_up(task, failure, decision)
        return self._durably(decision)

    def extend(self, task: LiveTask, seconds: float) -> "asyncio.Future[None]":
        """Wait so much longer for a callback, from now."""
        decision = self._decision()
        advance.extend(task, decision.now + seconds, decision)
        return self._durably(decision)

    def look_again(self) -> None:
        """Admit what may be sent after something outside the runs changed: workers, queues, limits."""
        self._commit(self._decision())

    def find(self, run: RunId, node: str, item: int) -> LiveTask | None:
        """Return the open task of a step run, if it has one."""
        live = self.runs.get(run)
        found = live.plan.by_id.get(node) if live else None
        unit = live.unit(found, item) if live and found else None
        return unit if isinstance(unit, LiveTask) else None

    def scheduled_by_queue(self) -> Counter[str]:
        """Return how many tasks of each queue wait for a time."""
        now = self._clock.now()
        return Counter(
            unit.node.queue
            for run in self.runs.values()
            for unit in run.units()
            if isinstance(unit, LiveTask) and unit.state is TaskState.SCHEDULED and unit.schedule_time > now
        )

    def in_flight(self) -> Counter[int]:
        """Return how many tasks of each shard were sent, or are about to be, and are not answered."""
        return Counter(map(shard_of, self._in_flight()))

    def hold_back(self, shards: Collection[int]) -> None:
        """Send nothing more of the runs of shards; what is in flight is answered as ever."""
        self.committing.held_back = self.committing.held_back.union(shards)
        for task in self._tasks_of(shards):
            self.admission.withdraw(task)

    def let_go(self, shards: Collection[int]) -> None:
        """Send again what was held back."""
        self.committing.held_back = self.committing.held_back.difference(shards)
        decision = self._decision()
        for task in self._tasks_of(shards):
            # Those that wait for a later time have a timer.
            if task.state is TaskState.SCHEDULED and task.schedule_time <= decision.now:
                decision.rescheduled.append(task)
        self._commit(decision)

    def drop(self, shards: Collection[int]) -> None:
        """Know nothing more of the runs of shards: another node takes them up from rows."""
        for run in [run for run in self.runs.values() if shard_of(run.id) in shards]:
            self.committing.leave(run, keeps_keys=False)
        self.committing.held_back = self.committing.held_back.difference(shards)

    def is_stalled(self, task: LiveTask, before: float) -> bool:
        """Return whether a task should have moved by itself before a time, and nothing will move it."""
        match task.state:
            case TaskState.SCHEDULED:
                is_held = task.run.is_held or shard_of(task.run.id) in self.committing.held_back
                return task.schedule_time <= before and not (is_held or self.admission.is_waiting(task))
            case TaskState.LEASED:
                is_sent = task.id in self.sending.under_way
                return self.sending.is_on and not is_sent and (task.leased_at or 0.0) <= before
            case TaskState.ACCEPTED:
                return task.deadline_time is not None and task.deadline_time <= before
            case TaskState.PARKED:
                return task.schedule_time <= before

    def unsent(self) -> set[TaskId]:
        """Return the tasks that have a place and no request: those whose leases are not durable yet, and no others."""
        return self._in_flight() - self.sending.under_way.keys()

    def _in_flight(self) -> set[TaskId]:
        """Return the tasks of steps that have a place; those of others have negative numbers."""
        return {task for task in self.admission.in_flight if task > 0}

    def _tasks_of(self, shards: Collection[int]) -> list[LiveTask]:
        runs = [run for run in self.runs.values() if shard_of(run.id) in shards]
        return [unit for run in runs for unit in run.units() if isinstance(unit, LiveTask)]

    async def stop(self, grace_seconds: float) -> None:
        """Send nothing more, and wait a while for the answers to what is in flight.

        What is not answered by then is cut off: it is lost, and tried again by the next engine.
        """
        await self.sending.drain(grace_seconds)
        self.timers.stop()
        await self.committing.stop()
        await self.sending.cut_off_all()

    # --- deciding ---------------------------------------------------------------------------------------------------

    def _decision(self) -> Decision:
        return Decision(self._clock.now(), self._clock.random, self.ids, self._limits, self.runs_url)

    def _decide(self, task: LiveTask, outcome: Outcome | Pinned, decision: Decision) -> None:
        try:
            self._apply(task, outcome, decision)
        except Exception:  # halfway through: what memory holds of the run is worth nothing
            self.committing.forget({task.run, *decision.touched})
            raise

    @staticmethod
    def _apply(task: LiveTask, outcome: Outcome | Pinned, decision: Decision) -> None:
        match outcome:
            case Succeeded(result=b"null") if task.node.every is not None:
                advance.look_again(task, decision)
            case Succeeded(result=result, status=status, logs=logs):
                advance.succeed(task, result, decision, status, logs)
            case Pinned(graph=graph, status=status, logs=logs):
                advance.pin(task, graph, decision, status, logs)
            case Accepted():
                advance.accept(task, decision)
            case Failed(failure=failure, timed_out=timed_out, logs=logs):
                state = AttemptState.TIMED_OUT if timed_out else AttemptState.FAILED
                advance.fail(task, failure, decision, state=state, logs=logs)
            case Lost(reason=reason):
                advance.lose(task, decision, reason)
            case Unserved():
                advance.unlease(task, decision)
            case Unsendable(failure=failure):
                advance.reject(task, failure, decision)
            case _:
                assert_never(outcome)

    def _on_answers(self, tasks: Sequence[LiveTask], outcomes: Sequence[Outcome | Pinned]) -> None:
        """Decide on what one request was answered: one task, or all elements of a batch, so that the next is full."""
        worker = None
        for task in tasks:
            worker = self.admission.release(task.id)
        decision = self._decision()
        try:
            for task, outcome in zip(tasks, outcomes, strict=True):
                # Otherwise its step or run ended while the request was out: only its place is free again.
                if task.state is TaskState.LEASED and task.is_open:
                    self._decide(task, outcome, decision)
        except Exception:
            log.exception("the answer to task %s could not be used; its run is read again", tasks[0].id)
            self.look_again()
            return
        first = outcomes[0]
        if isinstance(first, Unserved) and not first.may_be_asked and worker is not None:
            self._drop(worker, first.reason)
        self._commit(decision)

    def _drop(self, worker: Worker, reason: str) -> None:
        """Send a worker nothing more until it registers again, as it does when its next heartbeat is refused."""
        if self.admission.workers.get(worker.id) is worker:
            log.info("worker %s dropped: %s", worker.id, reason)
            self.admission.workers.remove(worker.id)

    def wake(self, due: Iterable[Timed]) -> None:
        """Let happen what is due to happen by itself: a time or the end of a wait has come, or a run's deadline."""
        decision = self._decision()
        for task in due:
            if isinstance(task, LiveRun):
                advance.expire_run(task, decision)
                continue
            if not task.is_open or task.id in decision.closed:
                continue
            if task.state is TaskState.PARKED:
                waiting.fire(task, decision)
                continue
            expired = task.deadline_time is not None and task.deadline_time <= decision.now
            if expired and task.state is not TaskState.LEASED:
                advance.expire(task, decision)
            elif task.state is TaskState.SCHEDULED and not self.admission.is_waiting(task):
                decision.rescheduled.append(task)
            if expired:
                task.has_alarm = False
        self._commit(decision)


def _note_wait(task: LiveTask, decision: Decision) -> None:
    """Note what a parked task that is taken up waits for, for whoever brings it."""
    if task.node.kind == "event":
        decision.awaiting.append(task.id)
    elif task.node.kind == "approval":
        decision.asking = (*decision.asking, task)
    elif task.node.kind == "turn":
        decision.in_turn = (*decision.in_turn, task)
