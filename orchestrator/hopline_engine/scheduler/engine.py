"""The engine: what can be asked of it, over its one coordinator.

Knows the store, the catalogue of workflows and who watches; how things look to people is the API's business.
"""

import asyncio
import logging
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, NamedTuple

from hopline_engine.clock import DatabaseClock
from hopline_engine.core.decision import Limits
from hopline_engine.core.live import LiveRun, Past
from hopline_engine.core.model import (
    RunId,
    RunState,
)
from hopline_engine.core.plan import DEFAULT_QUEUE, Plan
from hopline_engine.core.reusing import Earlier
from hopline_engine.errors import (
    EngineStoppingError,
    NoShardError,
    StoreUnavailableError,
    WorkerNotFoundError,
)
from hopline_engine.queue.admission import Admission, Queue
from hopline_engine.queue.dispatcher import Dispatcher
from hopline_engine.queue.signing import Signer
from hopline_engine.queue.workers import Worker, Workers
from hopline_engine.scheduler.approvals import Approvals
from hopline_engine.scheduler.asking import Asking
from hopline_engine.scheduler.callbacks import Callbacks
from hopline_engine.scheduler.controls import Controls
from hopline_engine.scheduler.coordinator import Coordinator
from hopline_engine.scheduler.definitions import Catalogue
from hopline_engine.scheduler.events import Events
from hopline_engine.scheduler.hearing import Hearing
from hopline_engine.scheduler.ids import TimeOrderedIds
from hopline_engine.scheduler.inputs import complete_input, misfit
from hopline_engine.scheduler.key_claims import KeyClaims
from hopline_engine.scheduler.membership import Membership
from hopline_engine.scheduler.orders import Orders
from hopline_engine.scheduler.parking import Parking
from hopline_engine.scheduler.pinning import Pinning
from hopline_engine.scheduler.pruning import Pruner
from hopline_engine.scheduler.reconciler import Reconciler
from hopline_engine.scheduler.resuming import Resumer
from hopline_engine.scheduler.run_turns import RunTurns
from hopline_engine.scheduler.schedule_book import ScheduleBook
from hopline_engine.scheduler.scheduling import Scheduling
from hopline_engine.scheduler.secret_book import SecretBook
from hopline_engine.scheduler.shares import Shares
from hopline_engine.scheduler.sweeping import Sweeper
from hopline_engine.scheduler.watchers import Watchers
from hopline_engine.settings import Settings
from hopline_engine.store import runs
from hopline_engine.store.errors import ChangesRefusedError, OwnershipLostError
from hopline_engine.store.interface import Store
from hopline_engine.store.runs import RunRecord

log = logging.getLogger(__name__)


class Started(NamedTuple):
    """A run that was asked for."""

    run: RunRecord
    """As it was when it was stored."""
    created: bool


class Engine:
    """Runs workflows. Everything happens on the loop it was opened on."""

    def __init__(
        self, *, store: Store, dispatcher: Dispatcher, signer: Signer, clock: DatabaseClock, settings: Settings
    ) -> None:
        """Make an engine over an open store; nothing runs before ``open``."""
        self.store = store
        self.catalogue = Catalogue(store)
        self.workers = Workers()
        self.watchers = Watchers()
        self._clock = clock
        self.settings = settings
        self.blobs = dispatcher.blobs
        self.sweeper = Sweeper(store, dispatcher.blobs)
        self.trouble: Exception | None = None
        """What keeps the store from committing now; set by whoever opened it."""
        self._starting: dict[str, asyncio.Future[RunRecord]] = {}
        self._watches: list[asyncio.Task[None]] = []
        self._claiming: list[asyncio.Task[None]] = []
        """They ask the store for what work in flight may need or give back, so they end after it."""
        default = Queue(DEFAULT_QUEUE, max_concurrent_dispatches=settings.default_max_concurrent_dispatches)
        self.admission = Admission(self.workers, default)
        ids = TimeOrderedIds(clock, last_run=0, last_task=0, shards=())
        self.coordinator = coordinator = Coordinator(
            commits=store,
            admission=self.admission,
            dispatcher=dispatcher,
            clock=clock,
            ids=ids,
            limits=Limits(
                accepted_timeout=settings.accepted_timeout_seconds,
                retry_after_cap=settings.retry_after_cap_seconds,
                lost_limit=settings.lost_limit,
                map_window=settings.map_window,
                misfit=misfit,
                contents=dispatcher.blobs.content,
            ),
            epoch=store.owner.epoch,
            on_change=self.watchers.tell,
        )
        self.callbacks = Callbacks(
            reads=store,
            coordinator=coordinator,
            catalogue=self.catalogue,
            dispatcher=dispatcher,
            signer=signer,
            hearing=Hearing(coordinator, dispatcher, self.watchers),
        )
        self.resumer = Resumer(store, self.catalogue, coordinator)
        self.controls = Controls(
            store=store,
            catalogue=self.catalogue,
            admission=self.admission,
            clock=clock,
            look_again=coordinator.look_again,
        )
        self.catalogue.catch_up = self.controls.catch_up
        coordinator.sending.pinning = Pinning(self.catalogue, clock, self.controls.meet)
        self.membership = membership = Membership(
            store=store,
            clock=clock,
            coordinator=coordinator,
            resumer=self.resumer,
            ids=ids,
            silence=settings.node_silence_seconds,
            on_beat=self.controls.refresh,
            on_moved=self.watchers.end_of,
        )
        membership.lost.add_done_callback(self._on_lost)
        self.reconciler = Reconciler(
            store=store,
            coordinator=coordinator,
            resumer=self.resumer,
            clock=clock,
            held=lambda: membership.held,
            seconds=settings.audit_seconds,
        )
        self.parking = Parking(
            store=store,
            coordinator=coordinator,
            resumer=self.resumer,
            clock=clock,
            held=lambda: membership.held,
            seconds=settings.park_seconds,
        )
        self.orders = Orders(
            reads=store,
            coordinator=coordinator,
            resumer=self.resumer,
            parking=self.parking,
            membership=membership,
            begin=self._start,
            whole=self.blobs.whole,
        )
        self.scheduling = Scheduling(
            store=store,
            catalogue=self.catalogue,
            clock=clock,
            starter=self,
            replace=self.orders.replace,
            held=lambda: membership.held,
        )
        self.schedules = ScheduleBook(
            store=store,
            catalogue=self.catalogue,
            starter=self,
            shortest=settings.schedule_period_seconds,
            changed=self.scheduling.wake,
        )
        self.events = Events(
            store=store,
            coordinator=coordinator,
            catalogue=self.catalogue,
            clock=clock,
            held=lambda: membership.held,
            has_company=membership.has_company,
            result_max_bytes=settings.payload_max_bytes,
            retention_seconds=settings.event_retention_seconds,
        )
        self.events.wake = self.parking.wake
        membership.on_taken = self._on_taken
        self.approvals = Approvals(
            coordinator=coordinator,
            alive=self.orders.alive,
            signer=signer,
            clock=clock,
            base_url=lambda: dispatcher.callback_base,
            link_seconds=settings.approval_link_seconds,
            result_max_bytes=settings.payload_max_bytes,
        )
        self.secrets = SecretBook(
            store=store, catalogue=self.catalogue, clock=clock, settings=settings, resolver=dispatcher.secrets
        )
        self.asking = Asking(coordinator, self.approvals, self.events)
        self._pruner = Pruner(
            store=store,
            clock=clock,
            held=lambda: membership.held,
            retention_seconds=settings.run_retention_seconds,
        )
        self.turns = RunTurns(store=store, coordinator=coordinator)
        self._shared: tuple[Shares | KeyClaims, ...] = ()
        if not store.owner.alone:
            look_again = coordinator.look_again
            shares = Shares(store=store, admission=self.admission, clock=clock, look_again=look_again)
            claims = KeyClaims(store=store, admission=self.admission, look_again=look_again)
            self._shared = (shares, claims)
            coordinator.listeners.admitted = (shares.look, claims.look)

    # --- life -------------------------------------------------------------------------------------------------------

    async def open(self, *, watches: bool = True) -> None:
        """Take up the stored runs where they were; until ``dispatch``, runs can be looked at and cancelled only.

        Args:
            watches: whether to look again and again for silent workers, nodes, faults and what can be forgotten; in
                virtual time, years of that would be all that happens.
        """
        await self.controls.load()
        self._claiming = [asyncio.create_task(shared.run()) for shared in self._shared]
        self._claiming.append(asyncio.create_task(self.turns.run()))
        await self.membership.open(beats=watches)
        self._watches = [asyncio.create_task(self.events.run(forgets=watches)), asyncio.create_task(self.asking.run())]
        if watches:
            for_ever = (
                self._keep_watch(),
                self.reconciler.run(),
                self.parking.run(),
                self._pruner.run(),
                self.sweeper.run(),
            )
            self._watches += [asyncio.create_task(watch) for watch in for_ever]

    def dispatch(self, url: str | None = None, *, runs_url: str = "", schedules: bool = False) -> None:
        """Let runs move: send what is due, from now on. Workers and callbacks must be able to reach the API by now.

        Other nodes reach this one at *url*; people look at runs at *runs_url*. With *schedules*, these fire.
        """
        self.coordinator.runs_url = runs_url
        self.coordinator.sending.is_on = True
        self.membership.take_part(url)
        self.asking.look_again()
        if schedules:
            self._watches.append(asyncio.create_task(self.scheduling.run()))
        self.coordinator.look_again()

    async def close(self) -> None:
        """Stop sending, wait a while for what is in flight, and leave the rest to the next engine."""
        self.watchers.end()
        await _end(self._watches)
        await self.resumer.stop()
        self.membership.takes_shards = False
        await self.coordinator.stop(self.settings.drain_seconds)
        await _end(self._claiming)
        await self.membership.leave()

    def _on_taken(self, shards: Collection[int]) -> None:
        self.events.take_up(shards)
        self.parking.look_again()

    def url_of(self, run: RunId) -> str | None:
        """Return where the node that works on a run is reached; ``None`` if it is this one.

        Raises:
            RunMovingError: it is on its way from one node to another.
        """
        return self.membership.url_of(run)

    def nodes(self) -> list[tuple[str, str]]:
        """Return the id and the URL of every node that can be reached, by id."""
        return self.membership.nodes()

    def check_ready(self) -> None:
        """Return if work is taken.

        Raises:
            EngineStoppingError: the engine is not open.
            NoShardError: it has no part of the runs.
            StoreUnavailableError: commits fail now; they are tried again until they succeed.
        """
        if not self.coordinator.sending.is_on:
            raise EngineStoppingError
        if self.trouble is not None:
            raise StoreUnavailableError(reason=str(self.trouble))
        if not self.membership.held:
            raise NoShardError

    # --- workflows and workers --------------------------------------------------------------------------------------

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

    async def start_tick(self, workflow: str, given: Mapping[str, Any], key: str, shard: int | None) -> RunRecord:
        """Start the one run of a tick, in a shard of this node; see ``start_run``."""
        return (await self.start_run(workflow, given, key, shard)).run

    async def start_run(
        self,
        workflow: str,
        given: Mapping[str, Any],
        idempotency_key: str | None,
        shard: int | None = None,
        priority: int = 0,
    ) -> Started:
        """Start a run, durably; or return the one that the idempotency key already has.

        It is in *shard*, which this node holds, or else in any of this node's. *priority* moves those of its steps.

        Raises:
            WorkflowNotFoundError
            StillLoadingError
            InvalidInputError
        """
        plan = await self.catalogue.find(workflow)
        run_input = complete_input(plan, given)
        if idempotency_key is None:
            return Started(await self._start(plan, run_input, priority=priority), created=True)
        starting = self._starting.get(idempotency_key)
        if starting is not None:
            return Started(await asyncio.shield(starting), created=False)
        self._starting[idempotency_key] = promise = asyncio.get_running_loop().create_future()
        try:
            by_key = partial(runs.by_idempotency_key, key=idempotency_key)
            stored = await self.store.read(by_key)
            try:
                run = stored or await self._start(plan, run_input, idempotency_key, shard=shard, priority=priority)
            except ChangesRefusedError:
                stored = await self.store.read(by_key)  # another node was first
                if stored is None:
                    raise
                run = stored
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
        idempotency_key: str | None = None,
        *,
        retry_of: RunRecord | None = None,
        fork_of: RunId | None = None,
        earlier: Earlier | None = None,
        shard: int | None = None,
        priority: int = 0,
    ) -> RunRecord:
        coordinator = self.coordinator
        if shard is not None and shard not in self.membership.held:
            raise NoShardError  # it went to another node while the tick was looked at, which now starts the run
        number = coordinator.ids.next_run(None if shard is None else RunId(shard))
        run = LiveRun.fresh(number, plan, run_input, self._clock.now(), None, priority)
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
            fork_of=fork_of,
            priority=priority,
            paused_at=None,
            ending=None,
            error=None,
            input=run_input,
            result=None,
        )
        past = None
        if earlier is not None:
            past = Past([row._replace(run_id=run.id) for row in earlier.kept])
            run.earlier = earlier.below
        await coordinator.start(
            run, idempotency_key=idempotency_key, retry_of=record.retry_of, fork_of=fork_of, past=past
        )
        return record

    # --- watching ---------------------------------------------------------------------------------------------------

    def _on_lost(self, lost: "asyncio.Future[OwnershipLostError]") -> None:
        if not lost.cancelled():
            self.trouble = lost.result()

    async def _keep_watch(self) -> None:
        """Drop workers that fell silent."""
        while True:
            await asyncio.sleep(min(1.0, self.settings.worker_silence_seconds / 3))
            silent = self.workers.silent_since(self._clock.now() - self.settings.worker_silence_seconds)
            for worker in silent:
                log.warning("worker %s was silent for too long; it gets nothing more", worker.id)
                self.workers.remove(worker.id)
            if silent:
                self.coordinator.look_again()


async def _end(tasks: Collection[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
