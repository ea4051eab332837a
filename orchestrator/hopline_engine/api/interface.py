"""What the API needs of the engine: the contract of every call that a route makes.

Names of runs are public ids, except in ``resolve_run``. Every method may also raise ``UnavailableError``; after any
error nothing has changed. What a method returned or did is durable.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from hopline_engine.api.asked import (
    ApprovalAnswer,
    ApprovalQuery,
    EventQuery,
    QueueLimits,
    RunQuery,
    WorkerRegistration,
)
from hopline_engine.api.fleet_models import Node, NodeAddress, Worker
from hopline_engine.api.models import (
    Approval,
    ApprovalDetail,
    Attempt,
    Emitted,
    Event,
    Queue,
    Run,
    RunDetail,
    RunPage,
    Step,
    Why,
    Workflow,
    WorkflowDetail,
)
from hopline_engine.api.schedule_service import ScheduleService
from hopline_engine.scheduler.callbacks import CallbackAnswer
from hopline_engine.scheduler.diagnosis import Diagnosis
from hopline_engine.scheduler.needs import Need
from hopline_engine.scheduler.secret_book import SecretBook
from hopline_engine.store.needs import Version


class Started(NamedTuple):
    """A run that was asked for."""

    run: Run
    created: bool
    """False when the idempotency key already had this run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunChange:
    """What changed in a run, as it is now."""

    steps: tuple[Step, ...] = ()
    run: Run | None = None
    """The run, if it changed itself: its state or its counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """A callback says that the step succeeded."""

    body: bytes
    """JSON of the result as it was sent; checked by ``strict_json``, not against the step's schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailure:
    """A callback says that the step failed."""

    type: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepHeartbeat:
    """A callback says that the work goes on."""

    seconds: float
    """For how long the step is to be waited for from now on, at least."""
    progress: str | None = None


class LinkState(StrEnum):
    """What a link to a question is."""

    GOOD = "good"
    EXPIRED = "expired"
    FORGED = "forged"


class Fleet(NamedTuple):
    """The nodes that share the work, as one of them knows them."""

    node: str
    """Id of this one."""
    nodes: list[NodeAddress]
    """All that can be reached."""


class EngineService(Protocol):
    """The engine as the API sees it."""

    async def ready(self) -> None:
        """Return when the engine takes work and its store answers.

        Raises:
            UnavailableError: it does not, now.
        """
        ...

    async def holder(self, run: str) -> str | None:
        """Return the base URL of the node that works on a run; ``None`` when this one can answer for it.

        Any node can answer for a run that has ended, or that does not exist.

        Raises:
            RunMovingError: no node works on it now; one will in a few seconds.
        """
        ...

    def healed(self) -> Mapping[str, int]:
        """Return how often something that was wrong was repaired since the start, by what it was."""
        ...

    async def diagnose(self) -> Diagnosis:
        """Look at the store and at this engine, for all that is wrong."""
        ...

    def fleet(self) -> Fleet:
        """Return the nodes as they were at the last heartbeat."""
        ...

    async def nodes(self) -> list[Node]:
        """Return all nodes, by id."""
        ...

    @property
    def schedules(self) -> ScheduleService:
        """When workflows run by themselves."""
        ...

    @property
    def secrets(self) -> SecretBook:
        """Secrets by name."""
        ...

    async def register_definitions(
        self, definitions: list[dict[str, Any]], current: list[str], *, schedules: bool = True
    ) -> list[str]:
        """Store all the definitions, or none; those named in *current* become the newest of their name.

        With *schedules*, what these say of when they run is in force then, except where it was changed by hand: what
        is worth telling of that is returned, in sentences. Registering again changes nothing.

        Raises:
            InvalidDefinitionError: one is not a definition, or calls one that is neither among them nor stored.
            InvalidScheduleError: one of *current* declares a schedule that cannot be used.
        """
        ...

    async def workflows(self) -> list[Workflow]:
        """Return the newest version of every workflow, by name."""
        ...

    async def workflow(self, name: str) -> WorkflowDetail:
        """Return the newest version of one workflow.

        Raises:
            WorkflowNotFoundError
        """
        ...

    async def versions(self, name: str) -> list[Version]:
        """Return the versions of a workflow that are kept, newest first.

        Raises:
            WorkflowNotFoundError
        """
        ...

    async def version(self, name: str, digest: str) -> WorkflowDetail:
        """Return the version of a workflow whose digest begins so.

        Raises:
            VersionNotFoundError: there is none, or there are several.
            WorkflowNotFoundError
        """
        ...

    async def needs(self) -> list[Need]:
        """Return what workers have to serve until every run that is open now has ended."""
        ...

    async def register_worker(self, worker: str, registration: WorkerRegistration) -> Worker:
        """Let the engine call a worker, in place of what was known under its id."""
        ...

    async def heartbeat_worker(self, worker: str) -> None:
        """Note that a worker is alive.

        Raises:
            WorkerNotFoundError: it has to register again.
        """
        ...

    async def remove_worker(self, worker: str) -> None:
        """Send a worker nothing more; what it still runs may be answered. Not an error when it is not known."""
        ...

    async def workers(self) -> list[Worker]:
        """Return the workers that are there now."""
        ...

    async def start_run(
        self, workflow: str, run_input: dict[str, Any], idempotency_key: str | None, priority: int = 0
    ) -> Started:
        """Start a run of the newest version of a workflow, or return the one that has the idempotency key.

        Raises:
            WorkflowNotFoundError
            InvalidInputError: the input does not fit the parameters.
        """
        ...

    async def resolve_run(self, ref: str) -> str:
        """Return the id of the run that *ref* names: an id, a unique prefix of one, ``@last`` or ``@failed``.

        A prefix may leave out the ``r_``.

        Raises:
            RunNotFoundError
            AmbiguousRunError: several runs begin so.
        """
        ...

    async def run_detail(self, run: str) -> RunDetail:
        """Return a run with its steps."""
        ...

    async def list_runs(self, query: RunQuery) -> RunPage:
        """Return one page of runs, newest first.

        Raises:
            RunNotFoundError: ``after`` names no run.
        """
        ...

    async def run_output(self, run: str) -> bytes:
        """Return the JSON of what a run returned.

        Raises:
            RunNotFinishedError
            RunNotSucceededError: it failed or was cancelled.
        """
        ...

    async def run_attempts(self, run: str, step: str | None, attempt: int | None) -> list[Attempt]:
        """Return the attempts of a run that are over, oldest first; of one step, or of one element of a map.

        Raises:
            StepNotFoundError
        """
        ...

    async def why(self, run: str, step: str | None) -> Why:
        """Return why each step of a run, or one of them, is not further.

        Raises:
            StepNotFoundError
        """
        ...

    async def cancel_run(self, run: str) -> Run:
        """End a run as cancelled; when this returns, no further attempt starts and no result changes anything.

        Raises:
            RunEndedError
        """
        ...

    async def pause_run(self, run: str) -> Run:
        """Let nothing more of a run, and of those below it, start; not an error when it is paused.

        Raises:
            RunEndedError
        """
        ...

    async def resume_run(self, run: str) -> Run:
        """Let a paused run go on; not an error when it is not paused.

        Raises:
            RunEndedError
        """
        ...

    async def retry_run(self, run: str, items: Sequence[str] = ()) -> Run:
        """Start a new run that keeps what succeeded in one that has ended, but for *items* and what depends on them.

        Raises:
            RunNotFinishedError
            RunNotRetryableError: it succeeded, and no items are named.
            StepNotFoundError
            NotMappedError: an item is not one.
        """
        ...

    async def fork_run(self, run: str, step: str, given: dict[str, Any]) -> Run:
        """Start a new run with the arguments of one that has ended, but for those *given*, that keeps what succeeded.

        *step* and all that depends on it is made again.

        Raises:
            RunNotFinishedError
            StepNotFoundError
            InvalidInputError
        """
        ...

    async def callback(
        self, run: str, step: str, attempt: int, token: str, report: StepResult | StepFailure | StepHeartbeat
    ) -> CallbackAnswer:
        """Apply what a target reports about an attempt that it accepted; *step* may name an element, ``charge[3]``.

        The token is looked at first: whoever has none learns nothing else.
        """
        ...

    async def approvals(self, query: ApprovalQuery) -> list[Approval]:
        """Return questions to people, the newest first."""
        ...

    async def approval(self, run: str, step: str) -> ApprovalDetail:
        """Return the question of one step.

        Raises:
            ApprovalNotOpenError: the step never asked one.
        """
        ...

    async def decide_approval(self, run: str, step: str, answer: ApprovalAnswer) -> ApprovalDetail:
        """Take the answer of a person.

        Raises:
            ApprovalNotOpenError: the step does not wait for one.
            InvalidApprovalError: the form is not filled in as it must be.
        """
        ...

    def approval_link_state(self, run: str, step: str, expires: int, signature: str) -> LinkState:
        """Return whether a link to a question is good."""
        ...

    async def emit_event(self, name: str, key: str, payload: bytes) -> Emitted:
        """Keep an event, unless there was one of this name and key; start the runs that it starts, end waits for it.

        Raises:
            EventNotFoundError: no workflow waits for such an event, or is started by one.
            InvalidEventError: the payload is not what they declare.
        """
        ...

    async def events(self, query: EventQuery) -> list[Event]:
        """Return events, the newest first."""
        ...

    async def queues(self) -> list[Queue]:
        """Return all queues, by name."""
        ...

    async def queue(self, name: str) -> Queue:
        """Return one queue.

        Raises:
            QueueNotFoundError
        """
        ...

    async def pause_queue(self, name: str) -> Queue:
        """Stop sending the tasks of a queue; not an error when it is paused.

        Raises:
            QueueNotFoundError
        """
        ...

    async def resume_queue(self, name: str) -> Queue:
        """Send the tasks of a queue again; not an error when it is running.

        Raises:
            QueueNotFoundError
        """
        ...

    async def update_queue(self, name: str, limits: QueueLimits) -> Queue:
        """Change the limits of a queue that are among ``limits.model_fields_set``; ``None`` there means no limit.

        Raises:
            QueueNotFoundError
            InvalidQueueLimitsError
        """
        ...

    def subscribe(self, run: str) -> AsyncGenerator[RunDetail | RunChange, None]:
        """Yield the run as it is, then every change of it, and return after the change that ended it.

        Nothing is missed between two items, but changes are gathered while nobody asks for the next item, so a slow
        reader gets fewer and larger ones and costs no memory. The reader closes the generator, at any time.
        """
        ...
