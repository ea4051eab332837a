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

import msgspec

from hopline_engine.clock import Clock
from hopline_engine.core.decision import Limits
from hopline_engine.core.live import LiveRun, LiveTask, Past, failure_from_json
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
from hopline_engine.core.plan import DEFAULT_QUEUE, Plan
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
from hopline_engine.scheduler.resuming import Resumer
from hopline_engine.scheduler.watchers import Watchers
from hopline_engine.settings import Settings
from hopline_engine.store import definitions, nodes, queues, recovery, runs, steps
from hopline_engine.store.errors import StoreError
from hopline_engine.store.interface import Store
from hopline_engine.store.queues import QueueLimits
from hopline_engine.store.runs import RunRecord

log = logging.getLogger(__name__)
HEARTBEAT_SECONDS: Final = 5.0


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
        self.catalogue = Catalogue(store)
        self.workers = Workers()
        self.watchers = Watchers()
        self._dispatcher = dispatcher
        self._signer = signer
        self._clock = clock
        self._settings = settings
        self.trouble: Exception | None = None
        """What keeps the store from committing now; set by whoever opened it."""
        self._starting: dict[str, asyncio.Future[RunRecord]] = {}
        self._watches: list[asyncio.Task[None]] = []
        default = Queue(DEFAULT_QUEUE, max_concurrent_dispatches=settings.default_max_concurrent_dispatches)
        self.admission = Admission(self.workers, default)
        self._coordinator: Coordinator | None = None
        self._resumer: Resumer | None = None

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
        self._resumer = Resumer(self.store, self.catalogue, self._coordinator)
        await self.catalogue.load_current()
        await self._load_queues()
        await self._resumer.take_up_all()
        self._watches = [asyncio.create_task(watch) for watch in (self._keep_watch(), self._show_life())]

    def dispatch(self) -> None:
        """Let runs move: send what is due, from now on. Workers and callbacks must be able to reach the API by now."""
        self.coordinator.is_dispatching = True
        self.coordinator.look_again()

    async def close(self) -> None:
        """Stop sending, wait a while for what is in flight, and leave the rest to the next engine."""
        self.watchers.end()
        for watch in self._watches:
            watch.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        if self._resumer is not None:
            await self._resumer.stop()
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

    @property
    def resumer(self) -> Resumer:
        """What takes up the runs of an open engine.

        Raises:
            EngineStoppingError: it is not open.
        """
        if self._resumer is None:
            raise EngineStoppingError
        return self._resumer

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
        checked = self.catalogue.check(given)
        by_name = {definition.name: definition.digest for definition in checked.definitions}
        newest = {name: by_name[name] for name in current if name in by_name}
        queued = [spec for digest in newest.values() for spec in checked.plans[digest].queues]
        limits = [QueueLimits(**msgspec.structs.asdict(spec)) for spec in queued]
        now = self._clock.now()
        await self.store.execute(partial(queues.set_limits, limits=limits))
        await self.store.execute(
            partial(definitions.register, definitions=checked.definitions, current=newest, now=now)
        )
        self.catalogue.add(checked)
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
            await self.resumer.settled()  # its end may be decided and not durable, or it is just read again
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
        row = await self.store.read(partial(steps.get, run_id=stored.id, node=place.index, item=item))
        over = await self.store.read(
            partial(steps.attempts, run_id=stored.id, node=place.index, item=item, number=attempt, limit=1)
        )
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

    async def plan_of(self, digest: Digest) -> Plan:
        """Return a stored version of a workflow, loading it if it is not in memory."""
        await self.catalogue.load({digest})
        return self.catalogue.plan(digest)

    async def _load_queues(self) -> None:
        for row in await self.store.read(queues.all_queues):
            self._limit(row)
            queue = self.admission.queues[row.name]
            queue.is_paused = row.state == "paused"
            if queue.bucket is not None and row.tokens_at:
                queue.bucket.tokens, queue.bucket.at = row.tokens, row.tokens_at

    # --- watching ---------------------------------------------------------------------------------------------------

    async def _show_life(self) -> None:
        """Note in the store that this node is alive, as long as the store is its own."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                beat = partial(nodes.beat, node_id=self.store.owner.node, now=self._clock.now())
                await self.store.execute(beat)
            except StoreError as error:
                log.exception("the store is not ours any more")
                self.trouble = error
                return

    async def _keep_watch(self) -> None:
        """Drop workers that fell silent."""
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
