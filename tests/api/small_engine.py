"""An engine that is small but keeps what ``EngineService`` promises, in memory; tests move its runs by hand."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from hopline_engine.api.asked import (
    ApprovalAnswer,
    ApprovalQuery,
    EventQuery,
    QueueLimits,
    RunQuery,
    WorkerRegistration,
)
from hopline_engine.api.fleet_models import Node, NodeAddress, Worker
from hopline_engine.api.interface import Fleet, LinkState, RunChange, Started, StepFailure, StepHeartbeat, StepResult
from hopline_engine.api.models import (
    Approval,
    ApprovalDetail,
    Attempt,
    Bar,
    Emitted,
    Event,
    Failure,
    Queue,
    Reason,
    Run,
    RunDetail,
    RunPage,
    RunSummary,
    ShownState,
    Step,
    Why,
    Workflow,
    WorkflowDetail,
)
from hopline_engine.api.schedule_service import ScheduleService
from hopline_engine.core.model import AttemptState, Digest, RunState, StepState
from hopline_engine.core.states import FINAL_RUN_STATES
from hopline_engine.errors import (
    AmbiguousRunError,
    ApprovalNotOpenError,
    EngineStoppingError,
    InvalidDefinitionError,
    InvalidInputError,
    QueueNotFoundError,
    RunEndedError,
    RunMovingError,
    RunNotFinishedError,
    RunNotFoundError,
    RunNotRetryableError,
    RunNotSucceededError,
    StepNotFoundError,
    VersionNotFoundError,
    WorkerNotFoundError,
    WorkflowNotFoundError,
    closest,
)
from hopline_engine.scheduler.callbacks import CallbackAnswer, CallbackOutcome
from hopline_engine.scheduler.diagnosis import Check, Diagnosis, State
from hopline_engine.scheduler.needs import Need
from hopline_engine.scheduler.secret_book import SecretBook
from hopline_engine.store.needs import Version

NOW = 1795226446.5
TOKEN = "t" * 64
DEFINITION = {
    "format": 1,
    "name": "sales",
    "parameters": {
        "type": "object",
        "properties": {"shop": {"type": "string"}},
        "required": ["shop"],
        "additionalProperties": False,
    },
    "nodes": [{"id": "load", "upstream": []}, {"id": "charge", "upstream": ["load"]}],
}


class SmallEngine:
    """Runs whose steps wait until a test moves them."""

    schedules: ScheduleService
    """None; they are tested with the engine itself."""
    secrets: SecretBook
    """None either."""

    def __init__(self, name: str = "n_1") -> None:
        self.name = name
        self.peers: list[NodeAddress] = []
        """Itself and the other nodes, as far as they are reached."""
        self.elsewhere: dict[str, str | None] = {}
        """Runs that this node does not work on, and the URL of the one that does; ``None`` while nobody does."""
        self.is_running = True
        self.subscribers = 0
        self._definitions: dict[str, dict[str, Any]] = {}
        self._workers: dict[str, Worker] = {}
        self._runs: dict[str, RunDetail] = {}
        self._keys: dict[str, str] = {}
        self._reports: dict[tuple[str, str], StepResult | StepFailure | StepHeartbeat] = {}
        self._events: list[Event] = []
        self.questions: list[ApprovalDetail] = []
        self._queues = {"default": queue("default"), "mail": queue("mail")}
        self._changed = asyncio.Condition()
        self._version: dict[str, int] = {}
        self._touched: dict[tuple[str, str], int] = {}

    async def move(self, run: str, step: str, state: StepState) -> None:
        """Put a step into a state."""
        detail = self._runs[run]
        bars = [Bar(attempt=1, state=AttemptState.SUCCEEDED, started_at=NOW, ended_at=NOW + 1)]
        steps = [
            old.model_copy(update={"state": state, "attempts": 1, "started_at": NOW, "bars": bars})
            if old.id == step
            else old
            for old in detail.steps
        ]
        done = sum(step.state is StepState.SUCCEEDED for step in steps)
        await self._store(detail.model_copy(update={"steps": steps, "steps_done": done}), step)

    async def end(self, run: str, state: RunState, result: Any = None) -> None:
        """End a run."""
        failed = Failure(step="charge", type="ValueError", message="no money") if state is RunState.FAILED else None
        update = {"state": state, "result": result, "error": failed, "ended_at": NOW + 2}
        await self._store(self._runs[run].model_copy(update=update))

    async def adopt(self, detail: RunDetail) -> None:
        """Know a run that another node has started."""
        await self._store(detail)

    async def _store(self, detail: RunDetail, step: str | None = None) -> None:
        async with self._changed:
            self._runs[detail.id] = detail
            version = self._version[detail.id] = self._version.get(detail.id, 0) + 1
            if step is not None:
                self._touched[detail.id, step] = version
            self._changed.notify_all()

    async def ready(self) -> None:
        if not self.is_running:
            raise EngineStoppingError

    def healed(self) -> dict[str, int]:
        return {"stuck-run": 2}

    async def diagnose(self) -> Diagnosis:
        evidence = ({"id": 7},)
        checks = [
            Check(name="store", state=State.OK, text="sqlite at sales.db"),
            Check(name="stuck-run", state=State.WRONG, text="it hangs", hint="serve", evidence=evidence, is_audit=True),
        ]
        return Diagnosis(at=NOW, checks=checks, healed=self.healed())

    async def holder(self, run: str) -> str | None:
        if run not in self.elsewhere:
            return None
        url = self.elsewhere[run]
        if url is None:
            raise RunMovingError(run=run)
        return url

    def fleet(self) -> Fleet:
        return Fleet(self.name, self.peers)

    async def nodes(self) -> list[Node]:
        return [
            Node(id=peer.id, url=peer.url, epoch=epoch, shards=32, started_at=NOW, heartbeat_at=NOW + epoch)
            for epoch, peer in enumerate(self.peers, 1)
        ]

    async def register_definitions(
        self, definitions: list[dict[str, Any]], current: list[str], *, schedules: bool = True
    ) -> list[str]:
        for definition in definitions:
            if "nodes" not in definition:
                raise InvalidDefinitionError(workflow=definition.get("name"), problems=["nodes: missing"])
        self._definitions.update({found["name"]: found for found in definitions if found["name"] in current})
        return []

    async def workflows(self) -> list[Workflow]:
        return [await self.workflow(name) for name in sorted(self._definitions)]

    async def workflow(self, name: str) -> WorkflowDetail:
        definition = self._definition(name)
        return WorkflowDetail(
            name=name,
            digest="d" * 64,
            steps=len(definition["nodes"]),
            served=bool(self._workers),
            parameters=definition["parameters"],
            definition=definition,
        )

    def _definition(self, name: str) -> dict[str, Any]:
        if name not in self._definitions:
            raise WorkflowNotFoundError(workflow=name, did_you_mean=closest(name, self._definitions))
        return self._definitions[name]

    async def versions(self, name: str) -> list[Version]:
        return [Version(Digest((await self.workflow(name)).digest), 0.0, is_current=True, live_runs=0)]

    async def version(self, name: str, digest: str) -> WorkflowDetail:
        found = await self.workflow(name)
        if not found.digest.startswith(digest):
            raise VersionNotFoundError(workflow=name, digest=digest, matches=0)
        return found

    async def needs(self) -> list[Need]:
        return []

    async def register_worker(self, worker: str, registration: WorkerRegistration) -> Worker:
        given = registration.model_dump(exclude={"token"})
        self._workers[worker] = Worker.model_validate({**given, "id": worker, "in_flight": 0, "seen_at": NOW})
        return self._workers[worker]

    async def heartbeat_worker(self, worker: str) -> None:
        if worker not in self._workers:
            raise WorkerNotFoundError(worker=worker)

    async def remove_worker(self, worker: str) -> None:
        self._workers.pop(worker, None)

    async def workers(self) -> list[Worker]:
        return list(self._workers.values())

    async def start_run(
        self, workflow: str, run_input: dict[str, Any], idempotency_key: str | None, priority: int = 0
    ) -> Started:
        definition = self._definition(workflow)
        if idempotency_key in self._keys:
            return Started(plain(self._runs[self._keys[idempotency_key]]), created=False)
        problems = [f"{name} is missing" for name in definition["parameters"]["required"] if name not in run_input]
        problems += [f"{name} is unknown" for name in run_input if name not in definition["parameters"]["properties"]]
        if problems:
            raise InvalidInputError(workflow=workflow, problems=problems)
        run = f"r_{'ab'[len(self._runs) % 2]}{len(self._runs):09}"
        if idempotency_key is not None:
            self._keys[idempotency_key] = run
        detail = new_run(run, definition, run_input, idempotency_key)
        await self._store(detail)
        return Started(plain(detail), created=True)

    async def resolve_run(self, ref: str) -> str:
        failed = [run for run, detail in self._runs.items() if detail.state is RunState.FAILED]
        aliases = {"@last": list(self._runs)[-1:], "@failed": failed[-1:]}
        prefix = ref if ref.startswith("r_") else f"r_{ref}"
        found = aliases[ref] if ref in aliases else [run for run in self._runs if run.startswith(prefix)]
        if not found:
            raise RunNotFoundError(run=ref)
        if len(found) > 1:
            raise AmbiguousRunError(ref=ref, candidates=found)
        return found[0]

    async def run_detail(self, run: str) -> RunDetail:
        return self._runs[run]

    async def list_runs(self, query: RunQuery) -> RunPage:
        names = list(self._runs)[::-1]
        if query.after is not None:
            names = names[names.index(await self.resolve_run(query.after)) + 1 :]
        found = [
            self._runs[name]
            for name in names
            if query.state in (None, self._runs[name].state)
            and query.workflow in (None, self._runs[name].workflow)
            and (query.since is None or self._runs[name].created_at >= query.since)
        ]
        page = list[RunSummary](found[: query.limit])
        return RunPage(runs=page, next=page[-1].id if len(found) > query.limit else None)

    async def run_output(self, run: str) -> bytes:
        detail = self._runs[run]
        if detail.state is RunState.RUNNING:
            raise RunNotFinishedError(run=run)
        if detail.state is not RunState.SUCCEEDED:
            raise RunNotSucceededError(run=run, state=detail.state)
        return json.dumps(detail.result).encode()

    async def run_attempts(self, run: str, step: str | None, attempt: int | None) -> list[Attempt]:
        self._check_step(run, step)
        return [
            Attempt(
                step=of.id,
                item=None,
                attempt=bar.attempt,
                state=AttemptState(bar.state),
                status=200,
                error=None,
                logs="hello\n",
                started_at=bar.started_at,
                ended_at=NOW + 1,
            )
            for of in self._runs[run].steps
            for bar in of.bars
            if step in (None, of.id) and attempt in (None, bar.attempt)
        ]

    def _check_step(self, run: str, step: str | None) -> None:
        known = [of.id for of in self._runs[run].steps]
        if step is not None and step not in known:
            raise StepNotFoundError(run=run, step=step, did_you_mean=closest(step, known))

    async def why(self, run: str, step: str | None) -> Why:
        self._check_step(run, step)
        reasons = [
            Reason(step=of.id, item=None, reason="no_worker", text=f"no worker serves {of.id}")
            for of in self._runs[run].steps
            if step in (None, of.id)
        ]
        return Why(run=run, state=self._runs[run].state, reasons=reasons)

    async def cancel_run(self, run: str) -> Run:
        if self._runs[run].state is not RunState.RUNNING:
            raise RunEndedError(run=run, state=self._runs[run].state)
        await self.end(run, RunState.CANCELLED)
        return plain(self._runs[run])

    async def pause_run(self, run: str) -> Run:
        return await self._changed_run(run, "paused")

    async def resume_run(self, run: str) -> Run:
        return await self._changed_run(run, RunState.RUNNING)

    async def _changed_run(self, run: str, state: ShownState) -> Run:
        if self._runs[run].state in FINAL_RUN_STATES:
            raise RunEndedError(run=run, state=self._runs[run].state)
        await self._store(self._runs[run].model_copy(update={"state": state}))
        return plain(self._runs[run])

    async def fork_run(self, run: str, step: str, given: dict[str, Any]) -> Run:
        old = self._runs[run]
        self._check_step(run, step)
        started = await self.start_run(old.workflow, old.input | given, None)
        await self._store(self._runs[started.run.id].model_copy(update={"fork_of": run}))
        return plain(self._runs[started.run.id])

    async def retry_run(self, run: str, items: Sequence[str] = ()) -> Run:
        old = self._runs[run]
        if old.state is RunState.RUNNING:
            raise RunNotFinishedError(run=run)
        if old.state is RunState.SUCCEEDED and not items:
            raise RunNotRetryableError(run=run, state=old.state)
        started = await self.start_run(old.workflow, old.input, None)
        await self._store(self._runs[started.run.id].model_copy(update={"retry_of": run}))
        return plain(self._runs[started.run.id])

    async def callback(
        self, run: str, step: str, attempt: int, token: str, report: StepResult | StepFailure | StepHeartbeat
    ) -> CallbackAnswer:
        if token != TOKEN:
            return CallbackAnswer(CallbackOutcome.FORGED)
        if run not in self._runs or attempt > 2:
            return CallbackAnswer(CallbackOutcome.UNKNOWN)
        if attempt == 1:
            return CallbackAnswer(CallbackOutcome.STALE)
        if self._runs[run].state is not RunState.RUNNING:
            return CallbackAnswer(CallbackOutcome.ENDED)
        if isinstance(report, StepResult) and not report.body.isdigit():
            return CallbackAnswer(CallbackOutcome.INVALID, "[]: not an integer")
        if self._reports.get((run, step)) == report:
            return CallbackAnswer(CallbackOutcome.ALREADY)
        self._reports[run, step] = report
        return CallbackAnswer(CallbackOutcome.APPLIED)

    def report_of(self, run: str, step: str) -> StepResult | StepFailure | StepHeartbeat:
        """Return what a callback reported."""
        return self._reports[run, step]

    async def approvals(self, query: ApprovalQuery) -> list[Approval]:
        return [approval for approval in self.questions if query.state in {"all", approval.state}]

    async def approval(self, run: str, step: str) -> ApprovalDetail:
        for approval in self.questions:
            if (approval.run, approval.step) == (run, step):
                return approval
        raise ApprovalNotOpenError(run=run, step=step)

    async def decide_approval(self, run: str, step: str, answer: ApprovalAnswer) -> ApprovalDetail:
        question = await self.approval(run, step)
        if question.state != "open":
            raise ApprovalNotOpenError(run=run, step=step)
        state = "approved" if answer.approved else "rejected"
        changes = {"state": state, "by": answer.by, "form": answer.form, "decided_at": NOW}
        decided = question.model_copy(update=changes)
        self.questions[self.questions.index(question)] = decided
        return decided

    def approval_link_state(self, run: str, step: str, expires: int, signature: str) -> LinkState:
        if signature != TOKEN:
            return LinkState.FORGED
        return LinkState.GOOD if expires > NOW else LinkState.EXPIRED

    async def emit_event(self, name: str, key: str, payload: bytes) -> Emitted:
        kept = next((event for event in self._events if (event.name, event.key) == (name, key)), None)
        if kept is not None:
            return Emitted(**dict(kept), created=False, runs=[])
        self._events.insert(0, Event(name=name, key=key, payload=json.loads(payload), emitted_at=NOW))
        return Emitted(**dict(self._events[0]), created=True, runs=["r_begun"])

    async def events(self, query: EventQuery) -> list[Event]:
        return [event for event in self._events if query.name in {None, event.name}][: query.limit]

    async def queues(self) -> list[Queue]:
        return list(self._queues.values())

    async def queue(self, name: str) -> Queue:
        if name not in self._queues:
            raise QueueNotFoundError(queue=name, did_you_mean=closest(name, self._queues))
        return self._queues[name]

    async def pause_queue(self, name: str) -> Queue:
        return await self._changed_queue(name, {"state": "paused"})

    async def resume_queue(self, name: str) -> Queue:
        return await self._changed_queue(name, {"state": "running"})

    async def update_queue(self, name: str, limits: QueueLimits) -> Queue:
        return await self._changed_queue(name, limits.model_dump(exclude_unset=True))

    async def _changed_queue(self, name: str, update: dict[str, Any]) -> Queue:
        self._queues[name] = (await self.queue(name)).model_copy(update=update)
        return self._queues[name]

    async def subscribe(self, run: str) -> AsyncGenerator[RunDetail | RunChange, None]:
        self.subscribers += 1
        try:
            seen = self._version[run]
            yield self._runs[run]
            while self._runs[run].state is RunState.RUNNING or seen < self._version[run]:
                await self._later_than(run, seen)
                detail, before, seen = self._runs[run], seen, self._version[run]
                steps = tuple(step for step in detail.steps if self._touched.get((run, step.id), 0) > before)
                yield RunChange(steps=steps, run=plain(detail))
        finally:
            self.subscribers -= 1

    async def _later_than(self, run: str, version: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._version[run] > version)


def queue(name: str) -> Queue:
    """Return an empty queue."""
    return Queue(
        name=name,
        state="running",
        max_dispatches_per_second=None,
        max_burst_size=None,
        max_concurrent_dispatches=1000,
        ready=0,
        waiting_for_key=0,
        scheduled=0,
        in_flight=0,
        oldest_ready_seconds=None,
    )


def new_run(run: str, definition: dict[str, Any], run_input: dict[str, Any], key: str | None) -> RunDetail:
    """Return a run of which nothing has happened yet."""
    steps = [
        Step(
            id=node["id"],
            kind="http",
            state=StepState.PENDING,
            attempts=0,
            items=None,
            started_at=None,
            ended_at=None,
            upstream=node["upstream"],
            level=level,
            error=None,
            next_at=None,
            note=None,
            bars=[],
            runs=[],
        )
        for level, node in enumerate(definition["nodes"])
    ]
    return RunDetail(
        id=run,
        workflow=definition["name"],
        digest="d" * 64,
        state=RunState.RUNNING,
        input=run_input,
        result=None,
        error=None,
        idempotency_key=key,
        retry_of=None,
        parent=None,
        created_at=NOW,
        ended_at=None,
        steps_total=len(steps),
        steps_done=0,
        steps=steps,
    )


def plain(detail: RunDetail) -> Run:
    """Return a run without its steps."""
    return Run.model_validate({name: getattr(detail, name) for name in Run.model_fields})
