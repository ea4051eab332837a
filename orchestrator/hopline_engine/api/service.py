"""The engine as the API sees it: names to numbers on the way in, rows and live state to views on the way out."""

from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any

from hopline_engine.api.asked import (
    ApprovalAnswer,
    ApprovalQuery,
    EventQuery,
    QueueLimits,
    RunQuery,
    WorkerRegistration,
)
from hopline_engine.api.fleet_models import Node as EngineNode
from hopline_engine.api.fleet_models import NodeAddress, Worker
from hopline_engine.api.interface import (
    Fleet,
    LinkState,
    RunChange,
    Started,
    StepFailure,
    StepHeartbeat,
    StepResult,
)
from hopline_engine.api.models import (
    Approval,
    ApprovalDetail,
    Attempt,
    Emitted,
    Event,
    Queue,
    RunDetail,
    RunPage,
    Why,
    Workflow,
    WorkflowDetail,
)
from hopline_engine.api.roster import live_worker, node_view, worker_view
from hopline_engine.api.run_orders import RunOrders, node_of
from hopline_engine.api.schedule_service import Schedules
from hopline_engine.api.shown_runs import ShownRuns
from hopline_engine.api.views import (
    approval_fields,
    attempt_view,
    detail_view,
    event_fields,
    shown_state,
)
from hopline_engine.clock import Clock
from hopline_engine.core.live import LiveRun
from hopline_engine.core.model import WHOLE, Digest, RunId, RunState, StepState
from hopline_engine.core.names import parse_step_name, public_id, run_id
from hopline_engine.core.plan import Plan
from hopline_engine.core.retry import Failure
from hopline_engine.core.states import FINAL_RUN_STATES
from hopline_engine.errors import (
    ApprovalNotOpenError,
    RunMovingError,
    RunNotFinishedError,
    RunNotFoundError,
    RunNotSucceededError,
    VersionNotFoundError,
)
from hopline_engine.queue import admission
from hopline_engine.scheduler.approvals import form_of
from hopline_engine.scheduler.callbacks import CallbackAnswer
from hopline_engine.scheduler.diagnosis import Diagnosis, examine
from hopline_engine.scheduler.engine import Engine
from hopline_engine.scheduler.hearing import Heartbeat
from hopline_engine.scheduler.needs import Need, needs_of_live_runs
from hopline_engine.scheduler.secret_book import SecretBook
from hopline_engine.store import approvals, needs, nodes, runs, steps
from hopline_engine.store.needs import Version
from hopline_engine.store.queues import QueueLimits as StoredLimits
from hopline_engine.store.runs import RunFilter, RunRecord

_MOST_ATTEMPTS = 10_000


class Service(RunOrders):
    """Implements ``EngineService``."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._store = engine.store
        self._clock = clock
        self._shown = ShownRuns(engine, clock)

    async def ready(self) -> None:
        """Return when the engine takes work and its store answers."""
        self._engine.check_ready()

    # --- health -----------------------------------------------------------------------------------------------------

    def healed(self) -> Mapping[str, int]:
        """Return how often something that was wrong was repaired."""
        return self._engine.reconciler.healed

    async def diagnose(self) -> Diagnosis:
        """Look at the store and at this engine."""
        return await examine(self._store, self._engine.settings, self._clock.now(), self._engine)

    # --- nodes ------------------------------------------------------------------------------------------------------

    async def holder(self, run: str) -> str | None:
        """Return where the node that works on a run is; ``None`` when this one can answer for it."""
        number = run_id(run)
        if number is None:
            return None
        try:
            url = self._engine.url_of(number)
        except RunMovingError:
            if await self._is_open(number):
                raise
            return None
        if url is None:
            await self._engine.parking.wake(number)
            return None
        return url if await self._is_open(number) else None

    async def _is_open(self, run: RunId) -> bool:
        return await self._store.read(partial(runs.state, run_id=run)) is RunState.RUNNING

    def fleet(self) -> Fleet:
        """Return the nodes as they were at the last heartbeat."""
        nodes = [NodeAddress(id=node, url=url) for node, url in self._engine.nodes()]
        return Fleet(self._store.owner.node, nodes)

    async def nodes(self) -> list[EngineNode]:
        """Return all nodes."""
        return [node_view(stored) for stored in await self._store.read(nodes.all_nodes)]

    # --- workflows and workers --------------------------------------------------------------------------------------

    @property
    def schedules(self) -> Schedules:
        """When workflows run by themselves."""
        return Schedules(self._engine.schedules, self._shown, self._clock)

    @property
    def secrets(self) -> SecretBook:
        """Secrets by name."""
        return self._engine.secrets

    async def register_definitions(
        self, definitions: list[dict[str, Any]], current: list[str], *, schedules: bool = True
    ) -> list[str]:
        """Store definitions, and what they say of when they run."""
        named = {str(each.get("name")): each for each in definitions}
        newest = [named[name] for name in current if name in named]
        if schedules:
            self._engine.schedules.check_declared(newest, self._clock.now())
        await self._engine.controls.register(definitions, current)
        if not schedules:
            return []
        return await self._engine.schedules.declare([self._engine.catalogue.current(each["name"]) for each in newest])

    async def workflows(self) -> list[Workflow]:
        """Return the newest version of every workflow."""
        return [Workflow(**self._workflow_fields(plan)) for plan in self._engine.catalogue.all_current()]

    async def workflow(self, name: str) -> WorkflowDetail:
        """Return the newest version of one workflow."""
        plan = await self._engine.catalogue.find(name)
        return WorkflowDetail(**self._workflow_fields(plan), definition=self._engine.catalogue.body(plan.digest))

    async def versions(self, name: str) -> list[Version]:
        """Return the versions of a workflow."""
        await self._engine.catalogue.find(name)
        return await self._store.read(partial(needs.versions, name=name))

    async def version(self, name: str, digest: str) -> WorkflowDetail:
        """Return one version of a workflow."""
        found = [stored.digest for stored in await self.versions(name) if stored.digest.startswith(digest)]
        if len(found) != 1:
            raise VersionNotFoundError(workflow=name, digest=digest, matches=len(found))
        plan = await self._engine.catalogue.plan_of(found[0])
        return WorkflowDetail(**self._workflow_fields(plan), definition=self._engine.catalogue.body(found[0]))

    async def needs(self) -> list[Need]:
        """Return what live runs still have before them."""
        return await needs_of_live_runs(self._store, self._engine.catalogue)

    def _workflow_fields(self, plan: Plan) -> dict[str, Any]:
        return {
            "name": plan.name,
            "digest": plan.digest,
            "steps": len(plan.nodes),
            "served": not self._engine.workers.unserved(plan.routes),
            "parameters": plan.parameters,
        }

    async def register_worker(self, worker: str, registration: WorkerRegistration) -> Worker:
        """Send tasks to a worker from now on."""
        live = live_worker(worker, registration, self._clock.now())
        self._engine.register_worker(live)
        return worker_view(live)

    async def heartbeat_worker(self, worker: str) -> None:
        """Note that a worker is alive."""
        self._engine.heartbeat_worker(worker)

    async def remove_worker(self, worker: str) -> None:
        """Send a worker nothing more."""
        self._engine.workers.remove(worker)

    async def workers(self) -> list[Worker]:
        """Return the workers that are there now."""
        return [worker_view(worker) for worker in self._engine.workers]

    # --- runs -------------------------------------------------------------------------------------------------------

    async def start_run(
        self, workflow: str, run_input: dict[str, Any], idempotency_key: str | None, priority: int = 0
    ) -> Started:
        """Start a run, or return the one that has the idempotency key."""
        run, created = await self._engine.start_run(workflow, run_input, idempotency_key, priority=priority)
        return Started(await self._shown.run_view(run), created)

    async def resolve_run(self, ref: str) -> str:
        """Return the id of the run that *ref* names."""
        found = await self._store.read(lambda connection: runs.resolve(connection, ref))
        if found is None:
            raise RunNotFoundError(run=ref)
        return public_id(found)

    async def run_detail(self, run: str) -> RunDetail:
        """Return a run with its steps."""
        stored = await self._shown.find(run)
        plan = await self._shown.plan_of(stored)
        view = await self._shown.run_view(stored)
        return detail_view(view, await self._shown.steps_of(stored, plan) if plan is not None else [])

    async def list_runs(self, query: RunQuery) -> RunPage:
        """Return one page of runs."""
        after = (await self._shown.find(await self.resolve_run(query.after))).id if query.after else None
        above = await self._shown.find(await self.resolve_run(query.parent)) if query.parent else None
        parent = above.id if above is not None else None
        wanted = RunFilter(
            state=query.state, workflow=query.workflow, since=query.since, parent=parent, retried=query.retried
        )
        page = await self._store.read(partial(runs.page, wanted=wanted, limit=query.limit, after=after))
        views = await self._shown.summaries(page.runs, above)
        return RunPage(runs=views, next=public_id(page.next) if page.next is not None else None)

    async def run_output(self, run: str) -> bytes:
        """Return what a run returned."""
        stored = await self._shown.find(run)
        if stored.state == RunState.RUNNING:
            raise RunNotFinishedError(run=run)
        if stored.result is None:
            raise RunNotSucceededError(run=run, state=stored.state)
        return await self._engine.blobs.whole(stored.result)

    async def run_attempts(self, run: str, step: str | None, attempt: int | None) -> list[Attempt]:
        """Return the attempts of a run that are over."""
        stored = await self._shown.find(run)
        plan = await self._engine.catalogue.plan_of(stored.digest)
        node, item = None, None
        if step is not None:
            name, position = parse_step_name(step)
            node = node_of(run, plan, name).index
            item = position if position != WHOLE else None
        rows = await self._store.read(
            partial(steps.attempts, run_id=stored.id, node=node, item=item, number=attempt, limit=_MOST_ATTEMPTS)
        )
        return [attempt_view(row, plan) for row in rows]

    async def why(self, run: str, step: str | None) -> Why:
        """Return why steps are not further."""
        stored = await self._shown.find(run)
        plan = await self._engine.catalogue.plan_of(stored.digest)
        nodes = plan.nodes if step is None else [node_of(run, plan, parse_step_name(step)[0])]
        live = self._engine.coordinator.runs.get(stored.id)
        wanted = {node.index for node in nodes}
        if live is None:
            wanted.update(range(len(plan.nodes)))
        rows = await self._store.read(partial(steps.without_results, run_id=stored.id, nodes=wanted))
        ended = {row.node: row for row in rows}
        if live is None:
            live = _as_ended(stored, plan, {row.node: StepState(row.state) for row in rows if row.node >= 0})
        elif step is None and live.ending is not None:
            is_open = (node for node in plan.undos.values() if live.nodes[node.index].state is StepState.RUNNING)
            nodes = (*plan.nodes, *is_open)
        explainer = self._shown.explainer()
        reasons = [
            reason
            for node in nodes
            for reason in explainer.reasons(live, node, ended.get(node.index))
            if step is not None or reason.reason != "done"
        ]
        return Why(run=run, state=shown_state(stored), reasons=reasons)

    async def callback(
        self, run: str, step: str, attempt: int, token: str, report: StepResult | StepFailure | StepHeartbeat
    ) -> CallbackAnswer:
        """Apply what a target reports about an attempt that it accepted."""
        match report:
            case StepResult(body=body):
                said: bytes | Failure | Heartbeat = body
            case StepFailure(type=kind, message=text):
                said = Failure(kind, text, (kind,))
            case StepHeartbeat(seconds=seconds, progress=progress):
                said = Heartbeat(seconds, progress)
        return await self._engine.callbacks.call_back(run, step, attempt, token, said)

    async def subscribe(self, run: str) -> AsyncGenerator[RunDetail | RunChange, None]:
        """Yield a run as it is, then what changes in it, until it ends."""
        stored = await self._shown.find(run)
        plan = await self._engine.catalogue.plan_of(stored.digest)
        with self._engine.watchers.watch(stored.id) as watch:
            detail = await self.run_detail(run)
            yield detail
            state = detail.state
            while state not in FINAL_RUN_STATES:
                changed = await watch.changes()
                if changed is None:
                    return
                nodes = [node for index in sorted(changed) if (node := plan.node(index)) is not None]
                stored = await self._shown.stored(stored.id)
                view = await self._shown.run_view(stored)
                yield RunChange(steps=tuple(await self._shown.steps_of(stored, plan, nodes)), run=view)
                state = view.state

    # --- approvals --------------------------------------------------------------------------------------------------

    async def approvals(self, query: ApprovalQuery) -> list[Approval]:
        """Return questions to people, the newest first."""
        only_open = query.state == "open"
        stored = await self._store.read(partial(approvals.newest, only_open=only_open, limit=query.limit))
        return [
            Approval(**approval_fields(one, await self._engine.catalogue.plan_of(Digest(one.digest)))) for one in stored
        ]

    async def approval(self, run: str, step: str) -> ApprovalDetail:
        """Return the question of one step."""
        stored = await self._shown.find(run)
        plan = await self._engine.catalogue.plan_of(stored.digest)
        place = (node_of(run, plan, parse_step_name(step)[0]).index, parse_step_name(step)[1])
        asked = await self._store.read(partial(approvals.of_run, run_id=stored.id))
        found = next((one for one in asked if (one.node, one.item) == place), None)
        if found is None:
            raise ApprovalNotOpenError(run=run, step=step)
        task = self._engine.coordinator.find(stored.id, *parse_step_name(step)) if found.is_open else None
        link = self._engine.approvals.link(task) if task is not None else None
        schema = form_of(plan.nodes[found.node])
        return ApprovalDetail(**approval_fields(found, plan), link=link, form_schema=schema)

    async def decide_approval(self, run: str, step: str, answer: ApprovalAnswer) -> ApprovalDetail:
        """Take the answer of a person."""
        await self._engine.approvals.decide(run, step, approved=answer.approved, form=answer.form, by=answer.by)
        return await self.approval(run, step)

    def approval_link_state(self, run: str, step: str, expires: int, signature: str) -> LinkState:
        """Return whether a link to a question is good."""
        if not self._engine.approvals.is_good(run, step, expires, signature):
            return LinkState.FORGED
        return LinkState.EXPIRED if self._engine.approvals.is_over(expires) else LinkState.GOOD

    # --- events -----------------------------------------------------------------------------------------------------

    async def emit_event(self, name: str, key: str, payload: bytes) -> Emitted:
        """Keep an event, and let happen what it is for."""
        event, created, begun = await self._engine.events.emit(name, key, payload)
        return Emitted(**event_fields(event), created=created, runs=begun)

    async def events(self, query: EventQuery) -> list[Event]:
        """Return events, the newest first."""
        stored = await self._engine.events.newest(query.name, query.limit)
        return [Event(**event_fields(event)) for event in stored]

    # --- queues -----------------------------------------------------------------------------------------------------

    async def queues(self) -> list[Queue]:
        """Return all queues."""
        scheduled = self._engine.coordinator.scheduled_by_queue()
        queues = self._engine.admission.queues
        return [self._queue_view(queues[name], scheduled.get(name, 0)) for name in sorted(queues)]

    async def queue(self, name: str) -> Queue:
        """Return one queue."""
        scheduled = self._engine.coordinator.scheduled_by_queue()
        return self._queue_view(self._engine.controls.queue(name), scheduled.get(name, 0))

    async def pause_queue(self, name: str) -> Queue:
        """Stop sending the tasks of a queue."""
        await self._engine.controls.pause_queue(name, paused=True)
        return await self.queue(name)

    async def resume_queue(self, name: str) -> Queue:
        """Send the tasks of a queue again."""
        await self._engine.controls.pause_queue(name, paused=False)
        return await self.queue(name)

    async def update_queue(self, name: str, limits: QueueLimits) -> Queue:
        """Change limits of a queue."""
        queue = self._engine.controls.queue(name)
        given = limits.model_dump(include=limits.model_fields_set)
        fields = ("max_dispatches_per_second", "max_burst_size", "max_concurrent_dispatches")
        await self._engine.controls.limit_queue(
            StoredLimits(name=name, **{field: given.get(field, getattr(queue, field)) for field in fields})
        )
        return await self.queue(name)

    def _queue_view(self, queue: admission.Queue, scheduled: int) -> Queue:
        oldest = min((task.schedule_time for task in self._engine.admission.waiting(queue)), default=None)
        return Queue(
            name=queue.name,
            state="paused" if queue.is_paused else "running",
            max_dispatches_per_second=queue.max_dispatches_per_second,
            max_burst_size=queue.max_burst_size,
            max_concurrent_dispatches=queue.max_concurrent_dispatches,
            ready=queue.ready,
            waiting_for_key=self._engine.admission.keys.waiting_in[queue.name],
            scheduled=scheduled,
            in_flight=queue.in_flight,
            oldest_ready_seconds=max(0.0, self._clock.now() - oldest) if oldest is not None else None,
        )


def _as_ended(stored: RunRecord, plan: Plan, states: dict[int, StepState]) -> LiveRun:
    """Return a run that ended as if it were alive, so that its steps can be explained."""
    run = LiveRun.fresh(stored.id, plan, stored.input, stored.created_at, None)
    for index, state in states.items():
        run.nodes[index].state = state
    return run
