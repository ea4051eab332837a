"""What targets report about attempts that they accepted: applied once, however often and however late it comes."""

import contextlib
from enum import StrEnum
from functools import partial
from typing import NamedTuple

from hopline_engine.core.failures import failure_from_json
from hopline_engine.core.live import LiveTask
from hopline_engine.core.model import AttemptEnded, AttemptState, RunId, RunState, StepEnded, TaskState
from hopline_engine.core.names import parse_step_name, run_id
from hopline_engine.core.retry import Failure
from hopline_engine.errors import UnusableDefinitionError
from hopline_engine.queue.dispatcher import Dispatcher
from hopline_engine.queue.outcomes import Failed, Succeeded
from hopline_engine.queue.results import InvalidResultError, ResultType
from hopline_engine.queue.signing import Signer
from hopline_engine.scheduler.coordinator import Coordinator
from hopline_engine.scheduler.definitions import Catalogue
from hopline_engine.scheduler.hearing import Hearing, Heartbeat, without_secrets
from hopline_engine.store import runs, steps
from hopline_engine.store.interface import Reads


class CallbackOutcome(StrEnum):
    """What became of a callback."""

    APPLIED = "applied"
    ALREADY = "already"
    """The same report was applied before."""
    STALE = "stale"
    """The step is past this attempt."""
    ENDED = "ended"
    """The run has ended or was cancelled."""
    UNKNOWN = "unknown"
    """The token is right, but the attempt is not known, or not known to wait: too early, or a restored backup."""
    FORGED = "forged"
    """The token is not that of this attempt."""
    INVALID = "invalid"
    """The result does not fit the step's schema or cannot be stored; the step keeps waiting."""


class CallbackAnswer(NamedTuple):
    """What became of a callback, and why."""

    outcome: CallbackOutcome
    message: str | None = None
    """For people; what was wrong with the result when it is ``INVALID``."""
    until: float | None = None
    """Of a heartbeat: until when the step is waited for now, at least."""


class Callbacks:
    """Applies what targets report."""

    def __init__(
        self,
        *,
        reads: Reads,
        coordinator: Coordinator,
        catalogue: Catalogue,
        dispatcher: Dispatcher,
        signer: Signer,
        hearing: Hearing,
    ) -> None:
        """Make it.

        Args:
            reads: the store, where attempts are looked for that are not open.
            coordinator: of the runs.
            catalogue: of the definitions.
            dispatcher: knows what results are declared, and where large ones are kept.
            signer: whose tokens reports need.
            hearing: takes heartbeats.
        """
        self._store = reads
        self._coordinator = coordinator
        self._catalogue = catalogue
        self._dispatcher = dispatcher
        self._signer = signer
        self._hearing = hearing
        self._blobs = dispatcher.blobs

    async def call_back(
        self, public: str, step: str, attempt: int, token: str, report: "bytes | Failure | Heartbeat"
    ) -> CallbackAnswer:
        """Apply what a target reports about an attempt, if it is the first of its kind and in time."""
        if not self._signer.is_signed(token, public, step, attempt):
            return CallbackAnswer(CallbackOutcome.FORGED)
        run = run_id(public)
        node, item = parse_step_name(step)
        task = self._coordinator.find(run, node, item) if run is not None else None
        if run is not None and task is not None:
            report = without_secrets(report, await self._dispatcher.redactor(task.node))
            task = self._coordinator.find(run, node, item)
        # A task that waits for its next attempt has an attempt behind it that is over.
        if task is None or task.attempt != attempt or task.state is TaskState.SCHEDULED:
            return CallbackAnswer(await self._late(run, node, item, attempt, task, report))
        if isinstance(report, Heartbeat):
            return CallbackAnswer(CallbackOutcome.APPLIED, until=await self._hearing.hear(task, report))
        if task.state is not TaskState.ACCEPTED:
            return CallbackAnswer(CallbackOutcome.UNKNOWN, "the attempt has not been accepted yet")
        if isinstance(report, Failure):
            await self._coordinator.call_back(task, Failed(report))
            return CallbackAnswer(CallbackOutcome.APPLIED)
        try:
            read = self._dispatcher.result_type(task.run.plan, task.node).read(report)
        except InvalidResultError as error:
            return CallbackAnswer(CallbackOutcome.INVALID, f"{task.name}: {error}")
        kept = await self._blobs.kept(read)
        if task is not self._coordinator.find(task.run.id, node, item) or task.state is not TaskState.ACCEPTED:
            return CallbackAnswer(CallbackOutcome.UNKNOWN, "the attempt ended while its result was kept; try again")
        await self._coordinator.call_back(task, Succeeded(kept, 200))
        return CallbackAnswer(CallbackOutcome.APPLIED)

    async def _late(
        self,
        run: RunId | None,
        node: str,
        item: int,
        attempt: int,
        task: LiveTask | None,
        report: "bytes | Failure | Heartbeat",
    ) -> CallbackOutcome:
        """Say what a well-signed callback of an attempt that is not open comes too late, or too early, for."""
        stored = await self._store.read(lambda connection: runs.get(connection, run)) if run is not None else None
        plan = None
        with contextlib.suppress(UnusableDefinitionError):  # an engine that can run it may apply the callback
            plan = await self._catalogue.plan_of(stored.digest) if stored is not None else None
        place = plan.by_id.get(node) if plan is not None else None
        if stored is None or plan is None or place is None or (task is not None and attempt > task.attempt):
            return CallbackOutcome.UNKNOWN
        report = without_secrets(report, await self._dispatcher.redactor(place))
        row = await self._store.read(partial(steps.get, run_id=stored.id, node=place.index, item=item))
        if row is not None and row.result is not None:
            row = row._replace(result=await self._blobs.whole(row.result))
        over = await self._store.read(
            partial(steps.attempts, run_id=stored.id, node=place.index, item=item, number=attempt, limit=1)
        )
        if over and _is_repeated(report, over[0], row, self._dispatcher.result_type(plan, place)):
            return CallbackOutcome.ALREADY
        if stored.state != RunState.RUNNING:
            return CallbackOutcome.ENDED
        return CallbackOutcome.STALE if task is not None or row is not None else CallbackOutcome.UNKNOWN


def _is_repeated(
    report: "bytes | Failure | Heartbeat", attempt: AttemptEnded, step: StepEnded | None, declared: ResultType
) -> bool:
    """Return whether a report says again how its attempt ended."""
    if isinstance(report, Heartbeat):
        return False
    if isinstance(report, Failure):
        ended = failure_from_json(attempt.error)
        return attempt.state == AttemptState.FAILED and (ended.type, ended.message) == (report.type, report.message)
    if attempt.state != AttemptState.SUCCEEDED or step is None:
        return False
    with contextlib.suppress(InvalidResultError):
        return declared.read(report) == step.result
    return False
