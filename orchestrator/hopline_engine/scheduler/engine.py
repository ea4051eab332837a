"""The engine: what can be asked of it, over its one coordinator.

Knows the store, the catalogue of workflows and who watches; how things look to people is the API's business.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import partial
from typing import Any, Final, NamedTuple

from hopline_engine.clock import Clock
from hopline_engine.core.decision import Limits
from hopline_engine.core.live import LiveRun, LiveTask, Parent, Past, failure_from_json
from hopline_engine.core.model import (
    AttemptEnded,
    AttemptState,
    Digest,
    RunId,
    RunState,
    StepEnded,
    StepState,
    TaskState,
)
from hopline_engine.core.names import parse_step_name, run_id
from hopline_engine.core.plan import DEFAULT_QUEUE, Plan, child_digests
from hopline_engine.core.retry import Failure
from hopline_engine.errors import (
    EngineStoppingError,
    QueueNotFoundError,
    StoreUnavailableError,
    WorkerNotFoundError,
    closest,
)
from hopline_engine.queue.admission import Admission, Queue
from hopline_engine.queue.dispatcher import Dispatcher, Failed, Succeeded
from hopline_engine.queue.results import InvalidResultError, ResultType
from hopline_engine.queue.signing import Signer
from hopline_engine.queue.workers import Worker, Workers
from hopline_engine.scheduler.coordinator import Coordinator
from hopline_engine.scheduler.definitions import Catalogue
from hopline_engine.scheduler.ids import TimeOrderedIds
from hopline_engine.scheduler.inputs import complete_input
from hopline_engine.scheduler.watchers import Watchers
from hopline_engine.settings import Settings
from hopline_engine.store import definitions, queues, recovery, runs, steps
from hopline_engine.store.definitions import StoredDefinition
from hopline_engine.store.interface import Store
from hopline_engine.store.queues import QueueLimits
from hopline_engine.store.recovery import StoredRun
from hopline_engine.store.runs import RunRecord

log = logging.getLogger(__name__)
RUNS_AT_A_TIME: Final = 500


class CallbackOutcome(StrEnum):
    """What became of a callback."""

    APPLIED = "applied"
    ALREADY = "already"
    STALE = "stale"
    ENDED = "ended"
    UNKNOWN = "unknown"
    FORGED = "forged"
    INVALID = "invalid"


class Started(NamedTuple):
    """A run that was asked for."""

    run: RunRecord
    """As it was when it was stored."""
    created: bool


class Engine:
    """Runs workflows. Everything happens on the loop it was opened on."""

    def __init__(
        self, *, store: Store, dispatcher: Dispatcher, signer: Signer, clock: Clock, settings: Settings
    ) -> None:
        """Make an engine over an open store; nothing runs before ``open``."""
        self.store = store
        self.catalogue = Catalogue()
        self.workers = Workers()
        self.watchers = Watchers()
        self._dispatcher = dispatcher
        self._signer = signer
        self._clock = clock
        self._settings = settings
        self.trouble: Exception | None = None
        """What keeps the store from committing now; set by whoever opened it."""
        self._starting: dict[str, asyncio.Future[RunRecord]] = {}
        self._watch: asyncio.Task[None] | None = None
        default = Queue(DEFAULT_QUEUE, max_concurrent_dispatches=settings.default_max_concurrent_dispatches)
        self.admission = Admission(self.workers, default)
        self._coordinator: Coordinator | None = None

    # --- life -------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take up every stored run where it was; until ``dispatch``, runs can be looked at and cancelled only."""
        last = await self.store.read(recovery.last_ids)
        self._coordinator = Coordinator(
            commits=self.store,
            admission=self.admission,
            dispatcher=self._dispatcher,
            clock=self._clock,
            ids=TimeOrderedIds(self._clock, last_run=last.run, last_task=last.task),
            limits=Limits(
                accepted_timeout=self._settings.accepted_timeout_seconds,
                retry_after_cap=self._settings.retry_after_cap_seconds,
                lost_limit=self._settings.lost_limit,
                map_window=self._settings.map_window,
            ),
            epoch=self.store.owner.epoch,
            on_change=self.watchers.tell,
        )
        await self._load_catalogue()
        await self._load_queues()
        await self._take_up_runs()
        self._watch = asyncio.get_running_loop().create_task(self._keep_watch())

    def dispatch(self) -> None:
        """Let runs move: send what is due, from now on. Workers and callbacks must be able to reach the API by now."""
        self.coordinator.is_dispatching = True
        self.coordinator.look_again()

    async def close(self) -> None:
        """Stop sending, wait a while for what is in flight, and leave the rest to the next engine."""
        self.watchers.end()
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        if self._coordinator is not None:
            await self._coordinator.stop(self._settings.drain_seconds)

    @property
    def coordinator(self) -> Coordinator:
        """The coordinator of an open engine.

        Raises:
            EngineStoppingError: it is not open.
        """
        if self._coordinator is None:
            raise EngineStoppingError
        return self._coordinator

    def check_ready(self) -> None:
        """Return if work is taken.

        Raises:
            EngineStoppingError: the engine is not open.
            StoreUnavailableError: commits fail now; they are tried again until they succeed.
        """
        if not self.coordinator.is_dispatching:
            raise EngineStoppingError
        if self.trouble is not None:
            raise StoreUnavailableError(reason=str(self.trouble))

    # --- workflows and workers --------------------------------------------------------------------------------------

    async def register(self, given: Iterable[Mapping[str, Any]], current: Iterable[str]) -> None:
        """Store definitions, make some the newest of their names, and set the limits of the queues they describe.

        Raises:
            InvalidDefinitionError: one is malformed; nothing is stored.
        """
        received = self.catalogue.check(given)
        by_name = {definition.name: definition.digest for definition in received}
        newest = {name: by_name[name] for name in current if name in by_name}
        limits = [QueueLimits(**spec) for digest in newest.values() for spec in self.catalogue.plan(digest).queues]
        now = self._clock.now()
        await self.store.execute(partial(queues.set_limits, limits=limits))
        await self.store.execute(partial(definitions.register, definitions=received, current=newest, now=now))
        self.catalogue.set_current(newest)
        for each in limits:
            self._limit(each)
        self.coordinator.look_again()

    def register_worker(self, worker: Worker) -> None:
        """Send tasks to a worker from now on."""
        self.workers.add(worker)
        self.coordinator.look_again()

    def heartbeat_worker(self, worker: str) -> None:
        """Note that a worker is alive.

        Raises:
            WorkerNotFoundError: it has to register again.
        """
        found = self.workers.get(worker)
        if found is None:
            raise WorkerNotFoundError(worker=worker)
        found.seen_at = self._clock.now()

    # --- runs -------------------------------------------------------------------------------------------------------

    async def start_run(self, workflow: str, given: Mapping[str, Any], idempotency_key: str | None) -> Started:
        """Start a run, durably; or return the one that the idempotency key already has.

        Raises:
            WorkflowNotFoundError
            InvalidInputError
        """
        plan = self.catalogue.current(workflow)
        run_input = complete_input(plan, given)
        if idempotency_key is None:
            return Started(await self._start(plan, run_input, None), created=True)
        starting = self._starting.get(idempotency_key)
        if starting is not None:
            return Started(await asyncio.shield(starting), created=False)
        self._starting[idempotency_key] = promise = asyncio.get_running_loop().create_future()
        try:
            stored = await self.store.read(lambda connection: runs.by_idempotency_key(connection, idempotency_key))
            run = stored or await self._start(plan, run_input, idempotency_key)
        except BaseException as error:
            promise.set_exception(error)
            promise.exception()  # whoever else waits is told; if nobody does, that is no mistake
            raise
        finally:
            del self._starting[idempotency_key]
        promise.set_result(run)
        return Started(run, created=stored is None)

    async def _start(
        self,
        plan: Plan,
        run_input: bytes,
        idempotency_key: str | None,
        retry_of: RunRecord | None = None,
        kept: Iterable[StepEnded] = (),
    ) -> RunRecord:
        coordinator = self.coordinator
        run = LiveRun.fresh(coordinator.ids.next_run(), plan, run_input, self._clock.now(), None)
        record = RunRecord(
            id=run.id,
            public_id=run.public_id,
            workflow=plan.name,
            digest=plan.digest,
            state=RunState.RUNNING,
            idempotency_key=idempotency_key,
            parent_id=None,
            parent_public_id=None,
            parent_node=None,
            parent_item=None,
            retry_of=retry_of.id if retry_of else None,
            retry_of_public_id=retry_of.public_id if retry_of else None,
            created_at=run.created_at,
            ended_at=None,
            error=None,
            input=run_input,
            result=None,
        )
        past = Past([row._replace(run_id=run.id) for row in kept]) if retry_of else None
        await coordinator.start(run, idempotency_key=idempotency_key, retry_of=record.retry_of, past=past)
        return record

    async def cancel_run(self, run: RunId) -> bool:
        """End a run now; return whether it was alive. When this returns, no further attempt starts."""
        live = self.coordinator.runs.get(run)
        if live is None or live.state is not RunState.RUNNING:
            return False
        await self.coordinator.cancel(live)
        return True

    async def retry_run(self, stored: RunRecord) -> RunRecord:
        """Start a new run that keeps the results of the steps that succeeded in an ended one."""
        plan = await self.plan_of(stored.digest)
        ended = await self.store.read(lambda connection: steps.of_run(connection, stored.id))
        kept = [row for row in ended if row.state == StepState.SUCCEEDED]
        return await self._start(plan, stored.input, None, retry_of=stored, kept=kept)

    async def call_back(
        self, public: str, step: str, attempt: int, token: str, result: bytes | None, failure: Failure | None
    ) -> tuple[CallbackOutcome, str | None]:
        """Apply what a target reports about an attempt; see ``correctness.md`` for the answers."""
        if not self._signer.is_signed(token, public, step, attempt):
            return CallbackOutcome.FORGED, None
        run = run_id(public)
        node, item = parse_step_name(step)
        task = self.coordinator.find(run, node, item) if run is not None else None
        report = failure or result or b"null"
        # A task that waits for its next attempt has an attempt behind it that is over.
        if task is None or task.attempt != attempt or task.state is TaskState.SCHEDULED:
            return await self._late_callback(run, node, item, attempt, task, report), None
        if task.state is not TaskState.ACCEPTED:
            return CallbackOutcome.UNKNOWN, "the attempt has not been accepted yet"
        if isinstance(report, Failure):
            await self.coordinator.call_back(task, Failed(report))
            return CallbackOutcome.APPLIED, None
        try:
            read = self._dispatcher.result_type(task.run.plan, task.node).read(report)
        except InvalidResultError as error:
            return CallbackOutcome.INVALID, str(error)
        await self.coordinator.call_back(task, Succeeded(read, 200))
        return CallbackOutcome.APPLIED, None

    async def _late_callback(
        self, run: RunId | None, node: str, item: int, attempt: int, task: LiveTask | None, report: bytes | Failure
    ) -> CallbackOutcome:
        """Say what a well-signed callback of an attempt that is not open comes too late, or too early, for."""
        stored = await self.store.read(lambda connection: runs.get(connection, run)) if run is not None else None
        plan = await self.plan_of(stored.digest) if stored is not None else None
        place = plan.by_id.get(node) if plan is not None else None
        if stored is None or plan is None or place is None or (task is not None and attempt > task.attempt):
            return CallbackOutcome.UNKNOWN
        where = {"run_id": stored.id, "node": place.index, "item": item}
        row = await self.store.read(partial(steps.get, **where))
        over = await self.store.read(partial(steps.attempts, **where, number=attempt, limit=1))
        if over and _is_repeated(report, over[0], row, self._dispatcher.result_type(plan, place)):
            return CallbackOutcome.ALREADY
        if stored.state != RunState.RUNNING:
            return CallbackOutcome.ENDED
        return CallbackOutcome.STALE if task is not None or row is not None else CallbackOutcome.UNKNOWN

    # --- queues -----------------------------------------------------------------------------------------------------

    def queue(self, name: str) -> Queue:
        """Return a queue.

        Raises:
            QueueNotFoundError
        """
        found = self.admission.queues.get(name)
        if found is None:
            raise QueueNotFoundError(queue=name, did_you_mean=closest(name, self.admission.queues))
        return found

    async def pause_queue(self, name: str, *, paused: bool) -> None:
        """Pause or resume a queue, durably.

        Raises:
            QueueNotFoundError
        """
        queue = self.queue(name)
        if queue.is_paused != paused:
            await self.store.execute(partial(queues.set_limits, limits=[_limits(queue)]))
            queue.is_paused = paused
            await self.coordinator.move_queue(queue)

    async def limit_queue(self, limits: QueueLimits) -> None:
        """Set the limits of a queue, durably.

        Raises:
            QueueNotFoundError
        """
        self.queue(limits.name)
        await self.store.execute(partial(queues.set_limits, limits=[limits]))
        self._limit(limits)
        self.coordinator.look_again()

    def _limit(self, limits: QueueLimits) -> None:
        queue = self.admission.queues.setdefault(limits.name, Queue(limits.name))
        queue.limit(
            limits.max_dispatches_per_second,
            limits.max_burst_size,
            limits.max_concurrent_dispatches,
            self._clock.now(),
        )

    # --- opening ----------------------------------------------------------------------------------------------------

    async def _load_catalogue(self) -> None:
        current = await self.store.read(definitions.current)
        newest = {stored.name: stored.digest for stored in current}
        await self._load_definitions(set(newest.values()))
        self.catalogue.set_current(newest)

    async def plan_of(self, digest: Digest) -> Plan:
        """Return a stored version of a workflow, loading it if it is not in memory."""
        await self._load_definitions({digest})
        return self.catalogue.plan(digest)

    async def _load_definitions(self, digests: set[Digest]) -> None:
        """Load definitions with all that they call."""
        loaded: dict[Digest, StoredDefinition] = {}
        missing = {digest for digest in digests if not self.catalogue.has(digest)}
        while missing:
            wanted = sorted(missing)
            found = await self.store.read(lambda connection: definitions.by_digests(connection, wanted))  # noqa: B023
            loaded.update({stored.digest: stored for stored in found})
            called = {Digest(child) for stored in found for child in child_digests(stored.body)}
            missing = {digest for digest in called - loaded.keys() if not self.catalogue.has(digest)}
        self.catalogue.load(loaded.values())

    async def _load_queues(self) -> None:
        for row in await self.store.read(queues.all_queues):
            self._limit(row)
            queue = self.admission.queues[row.name]
            queue.is_paused = row.state == "paused"
            if queue.bucket is not None and row.tokens_at:
                queue.bucket.tokens, queue.bucket.at = row.tokens, row.tokens_at

    async def _take_up_runs(self) -> None:
        """Rebuild every live run; parents come before their sub-runs, since numbers grow."""
        taken: dict[RunId, tuple[LiveRun, Past]] = {}
        last = RunId(0)
        while page := await self.store.read(partial(recovery.live_runs, after=last, limit=RUNS_AT_A_TIME)):
            await self._load_definitions({stored.run.digest for stored in page})
            for stored in page:
                taken[stored.run.id] = self._rebuild(stored, taken)
            last = page[-1].run.id
        await self.coordinator.resume(taken.values())
        if taken:
            log.info("took up %d runs", len(taken))

    def _rebuild(self, stored: StoredRun, taken: Mapping[RunId, tuple[LiveRun, Past]]) -> tuple[LiveRun, Past]:
        row = stored.run
        run = LiveRun.fresh(row.id, self.catalogue.plan(row.digest), row.input, row.created_at, None)
        if row.parent_id is not None and row.parent_node is not None and row.parent_item is not None:
            above, its_past = taken[row.parent_id]
            run.parent = Parent(above, above.plan.nodes[row.parent_node], row.parent_item)
            its_past.runs[row.parent_node, row.parent_item] = run
        return run, Past(stored.steps, {(task.node, task.item): task for task in stored.tasks})

    # --- watching ---------------------------------------------------------------------------------------------------

    async def _keep_watch(self) -> None:
        """Drop workers that fell silent, and show that this node is alive."""
        while True:
            await asyncio.sleep(min(1.0, self._settings.worker_silence_seconds / 3))
            silent = self.workers.silent_since(self._clock.now() - self._settings.worker_silence_seconds)
            for worker in silent:
                log.warning("worker %s was silent for too long; it gets nothing more", worker.id)
                self.workers.remove(worker.id)
            if silent:
                self.coordinator.look_again()


def _is_repeated(report: bytes | Failure, attempt: AttemptEnded, step: StepEnded | None, declared: ResultType) -> bool:
    """Return whether a report says again how its attempt ended."""
    if isinstance(report, Failure):
        ended = failure_from_json(attempt.error)
        return attempt.state == AttemptState.FAILED and (ended.type, ended.message) == (report.type, report.message)
    if attempt.state != AttemptState.SUCCEEDED or step is None:
        return False
    with contextlib.suppress(InvalidResultError):
        return declared.read(report) == step.result
    return False


def _limits(queue: Queue) -> QueueLimits:
    return QueueLimits(
        name=queue.name,
        max_dispatches_per_second=queue.max_dispatches_per_second,
        max_burst_size=queue.max_burst_size,
        max_concurrent_dispatches=queue.max_concurrent_dispatches,
    )
