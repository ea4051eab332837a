"""Everything the engine refuses or cannot do, as one tree.

HoplineError                  hopline.errors
├── NotFoundError             what was named does not exist
│   ├── RunNotFoundError
│   ├── StepNotFoundError
│   ├── WorkflowNotFoundError
│   ├── VersionNotFoundError
│   ├── QueueNotFoundError
│   ├── ScheduleNotFoundError
│   ├── EventNotFoundError
│   ├── SecretNotFoundError
│   └── WorkerNotFoundError
├── ConflictError             it exists, but not in a state that allows this
│   ├── AmbiguousRunError
│   ├── RunEndedError
│   ├── RunNotFinishedError
│   ├── RunNotSucceededError
│   ├── RunNotRetryableError
│   ├── ApprovalNotOpenError
│   ├── ScheduleExistsError
│   ├── ScheduleDeclaredError
│   ├── BackfillOpenError
│   ├── SecretsKeyError
│   └── UnusableDefinitionError
├── InvalidError              what was given cannot be used as it is
│   ├── InvalidInputError
│   ├── InvalidDefinitionError
│   ├── InvalidEventError
│   ├── NotMappedError
│   ├── InvalidApprovalError
│   ├── InvalidSecretError
│   ├── InvalidQueueLimitsError
│   └── InvalidScheduleError
├── UnavailableError          the same call may succeed later
│   ├── StoreUnavailableError
│   ├── EngineStoppingError
│   ├── StillLoadingError
│   ├── NoShardError
│   ├── RunMovingError
│   └── NodeUnreachableError
├── KeyFileError              the signing key cannot be used
└── InsecureAddressError      the API would be open to others

An error says in ``code`` what programs may rely on, in its message what happened to what, and in ``hint`` what to do
next. It knows nothing of HTTP; ``hopline_engine.api.errors`` has the only table of status codes.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from hopline.errors import HoplineError


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that was probably meant.

    >>> closest("dayly_sales", ["daily_sales", "folder_report"])
    'daily_sales'
    """
    return next(iter(get_close_matches(name, list(known), n=1)), None)


def _meant(did_you_mean: str | None, otherwise: str) -> str:
    return f'did you mean "{did_you_mean}"?' if did_you_mean else otherwise


class NotFoundError(HoplineError):
    """What was named does not exist."""

    code = "not-found"


class RunNotFoundError(NotFoundError):
    """No run has this id, prefix or alias."""

    code = "run-not-found"

    def __init__(self, *, run: str) -> None:
        super().__init__(f'there is no run "{run}"', hint="hopline runs list")
        self.run = run


class StepNotFoundError(NotFoundError):
    """The run has no such step."""

    code = "step-not-found"

    def __init__(self, *, run: str, step: str, did_you_mean: str | None = None) -> None:
        super().__init__(f'run {run} has no step "{step}"', hint=_meant(did_you_mean, f"hopline runs show {run}"))
        self.run = run
        self.step = step


class WorkflowNotFoundError(NotFoundError):
    """No workflow of this name is registered."""

    code = "workflow-not-found"

    def __init__(self, *, workflow: str, did_you_mean: str | None = None) -> None:
        super().__init__(
            f'there is no workflow "{workflow}"',
            hint=_meant(did_you_mean, "hopline workflows list; a worker registers the workflows of its files"),
        )
        self.workflow = workflow


_QUEUES = "queues are named by the steps of registered workflows"


class VersionNotFoundError(NotFoundError):
    """The digest is not the beginning of that of exactly one version of the workflow."""

    code = "version-not-found"

    def __init__(self, *, workflow: str, digest: str, matches: int) -> None:
        said = f"{matches} versions" if matches else "no version"
        super().__init__(
            f'{said} of "{workflow}" with a digest that begins with {digest}',
            hint=f"hopline workflows versions {workflow}",
        )


class QueueNotFoundError(NotFoundError):
    """No registered workflow names this queue."""

    code = "queue-not-found"

    def __init__(self, *, queue: str, did_you_mean: str | None = None) -> None:
        super().__init__(f'there is no queue "{queue}"', hint=_meant(did_you_mean, _QUEUES))
        self.queue = queue


class ScheduleNotFoundError(NotFoundError):
    """There is no schedule of this name."""

    code = "schedule-not-found"

    def __init__(self, *, schedule: str, did_you_mean: str | None = None) -> None:
        super().__init__(f'there is no schedule "{schedule}"', hint=_meant(did_you_mean, "hopline schedules list"))
        self.schedule = schedule


class EventNotFoundError(NotFoundError):
    """No workflow waits for an event of this name, and none is started by one."""

    code = "event-not-found"

    def __init__(self, *, event: str, did_you_mean: str | None = None) -> None:
        super().__init__(
            f'no workflow waits for an event "{event}" or is started by one',
            hint=_meant(did_you_mean, "register the workflow first: hopline worker FILE"),
        )
        self.event = event


class SecretNotFoundError(NotFoundError):
    """The store keeps no secret of this name."""

    code = "secret-not-found"

    def __init__(self, *, secret: str, did_you_mean: str | None = None) -> None:
        super().__init__(
            f'there is no secret "{secret}" in the store', hint=_meant(did_you_mean, "hopline secrets list")
        )
        self.secret = secret


class WorkerNotFoundError(NotFoundError):
    """The engine does not know this worker, or has forgotten it."""

    code = "worker-not-found"

    def __init__(self, *, worker: str) -> None:
        super().__init__(f'there is no worker "{worker}"', hint="a worker that was silent has to register again")
        self.worker = worker


class ConflictError(HoplineError):
    """It exists, but not in a state that allows this."""

    code = "conflict"


class AmbiguousRunError(ConflictError):
    """Several runs begin with this prefix."""

    code = "run-ambiguous"

    def __init__(self, *, ref: str, candidates: Sequence[str]) -> None:
        super().__init__(f'several runs begin with "{ref}": {", ".join(candidates)}', hint="give one more character")
        self.ref = ref
        self.candidates = tuple(candidates)


class ScheduleExistsError(ConflictError):
    """There is a schedule of this name already."""

    code = "schedule-exists"

    def __init__(self, *, schedule: str) -> None:
        super().__init__(
            f'there is a schedule "{schedule}" already', hint=f"change it: hopline schedules update {schedule}"
        )
        self.schedule = schedule


class ScheduleDeclaredError(ConflictError):
    """The file of the workflow declares the schedule, and would bring it back."""

    code = "schedule-declared"

    def __init__(self, *, schedule: str) -> None:
        super().__init__(
            f'the schedule "{schedule}" stands in the file of its workflow, which would bring it back',
            hint=f"remove it there, or pause it: hopline schedules pause {schedule}",
        )
        self.schedule = schedule


class BackfillOpenError(ConflictError):
    """A schedule has one back-fill at a time."""

    code = "backfill-open"

    def __init__(self, *, schedule: str, waiting: int) -> None:
        super().__init__(
            f'the schedule "{schedule}" has a back-fill with {waiting} ticks left to start',
            hint=f"wait for it, or give it up: hopline schedules backfill {schedule} --order cancel",
        )
        self.schedule = schedule


class RunEndedError(ConflictError):
    """The run is over, and what was asked for can only be done to one that is not."""

    code = "run-ended"

    def __init__(self, *, run: str, state: str) -> None:
        super().__init__(f"run {run} has ended: it {_WAS[state]}")
        self.run = run
        self.state = state


class RunNotFinishedError(ConflictError):
    """The run is not over yet, so it has no output and cannot be retried."""

    code = "run-not-finished"

    def __init__(self, *, run: str) -> None:
        super().__init__(f"run {run} has not finished", hint=f"hopline runs watch {run}")
        self.run = run


class RunNotSucceededError(ConflictError):
    """The run is over and has no output."""

    code = "run-not-succeeded"

    def __init__(self, *, run: str, state: str) -> None:
        super().__init__(f"run {run} has no output: it {_WAS[state]}", hint=f"hopline runs show {run}")
        self.run = run
        self.state = state


class ApprovalNotOpenError(ConflictError):
    """The step waits for nobody's decision."""

    code = "approval-not-open"

    def __init__(self, *, run: str, step: str) -> None:
        super().__init__(
            f"step {step} of run {run} waits for no decision",
            hint="it was decided, its time is over, or it is no approval: hopline approvals list --all",
        )
        self.run = run
        self.step = step


class UnusableDefinitionError(ConflictError):
    """A stored version of a workflow cannot be run by this version of the engine; its runs wait for one that can."""

    code = "unusable-definition"

    def __init__(self, *, digest: str, reason: str) -> None:
        super().__init__(
            f"this server cannot run version {digest[:12]} of the workflow: {reason}",
            hint="its runs wait; upgrade the server to the version that the definition was registered with",
        )
        self.digest = digest
        self.reason = reason


class RunNotRetryableError(ConflictError):
    """The run did what it should, so there is nothing to retry."""

    code = "run-not-retryable"

    def __init__(self, *, run: str, state: str) -> None:
        super().__init__(
            f"run {run} {_WAS[state]}; only a failed or cancelled run can be retried",
            hint="hopline run starts a new one",
        )
        self.run = run
        self.state = state


_WAS = {"succeeded": "succeeded", "failed": "failed", "cancelled": "was cancelled"}


class SecretsKeyError(ConflictError):
    """Secrets in the store cannot be encrypted or read with the keys that the engine has."""

    code = "secrets-key"


class InvalidError(HoplineError):
    """What was given cannot be used as it is; nothing has changed."""

    code = "invalid"


class InvalidInputError(InvalidError):
    """The input of a run does not fit the parameters of its workflow."""

    code = "invalid-input"

    def __init__(self, *, workflow: str, problems: Sequence[str], hint: str | None = None) -> None:
        super().__init__(f"input of {workflow}: {'; '.join(problems)}", hint=hint)
        self.workflow = workflow
        self.problems = tuple(problems)
        """One for each parameter that is missing, of the wrong type or unknown."""


class InvalidDefinitionError(InvalidError):
    """A definition that was registered is not one."""

    code = "invalid-definition"

    def __init__(self, *, workflow: str | None, problems: Sequence[str]) -> None:
        super().__init__(f"definition of {workflow or 'a workflow without a name'}: {'; '.join(problems)}")
        self.workflow = workflow
        self.problems = tuple(problems)


class InvalidApprovalError(InvalidError):
    """The answer of a person is not what they were asked for."""

    code = "invalid-approval"

    def __init__(self, *, problems: Sequence[str]) -> None:
        super().__init__(f"this cannot be taken as a decision: {'; '.join(problems)}")
        self.problems = tuple(problems)


class InvalidEventError(InvalidError):
    """What an event says is not what workflows declare."""

    code = "invalid-event"

    def __init__(self, *, event: str, problems: Sequence[str]) -> None:
        super().__init__(f'what the event "{event}" says does not fit: {"; ".join(problems)}')
        self.event = event
        self.problems = tuple(problems)


class NotMappedError(InvalidError):
    """What was named is not an element of a mapped step."""

    code = "not-mapped"

    def __init__(self, *, name: str, step: str, is_mapped: bool) -> None:
        problem = f"{name} names no element of the step" if is_mapped else f"step {step} is not mapped"
        hint = f"name its elements: {step}[0]" if is_mapped else f"hopline runs fork RUN --from {step} makes it again"
        super().__init__(problem, hint=hint)
        self.name = name
        self.step = step


class InvalidSecretError(InvalidError):
    """A value cannot be a secret."""

    code = "invalid-secret"

    def __init__(self, *, secret: str, problem: str) -> None:
        super().__init__(f'the value of secret "{secret}" cannot be used: {problem}')
        self.secret = secret


class InvalidQueueLimitsError(InvalidError):
    """These limits do not make sense together."""

    code = "invalid-queue-limits"

    def __init__(self, *, queue: str, problem: str) -> None:
        super().__init__(f"limits of queue {queue}: {problem}")
        self.queue = queue


class InvalidScheduleError(InvalidError):
    """A schedule cannot be used as it was given."""

    code = "invalid-schedule"

    def __init__(self, *, schedule: str, problem: str, hint: str | None = None) -> None:
        super().__init__(f"schedule {schedule}: {problem}", hint=hint)
        self.schedule = schedule
        self.problem = problem


class UnavailableError(HoplineError):
    """The engine cannot do this now; the same call may succeed later. Nothing has changed."""

    code = "unavailable"


class StoreUnavailableError(UnavailableError):
    """The database does not answer."""

    code = "store-unavailable"

    def __init__(self, *, reason: str) -> None:
        super().__init__(f"the store does not answer: {reason}")
        self.reason = reason


class EngineStoppingError(UnavailableError):
    """The engine is shutting down, or has not started yet."""

    code = "engine-stopping"

    def __init__(self) -> None:
        super().__init__("the engine is not running")


class StillLoadingError(UnavailableError):
    """What was named is not there yet: files are being loaded that may have it."""

    code = "still-loading"

    def __init__(self, *, missing: str) -> None:
        super().__init__(f"{missing}; files that may have it are still being loaded", hint="ask again in a second")


class NoShardError(UnavailableError):
    """This node has joined the others and was not given a part of the runs yet, or has given back all of it."""

    code = "no-shard"

    def __init__(self) -> None:
        super().__init__("this node holds no part of the runs now", hint="ask again, or ask another node")


class RunMovingError(UnavailableError):
    """The run is on its way from one node to another."""

    code = "run-moving"

    def __init__(self, *, run: str) -> None:
        super().__init__(f"run {run} is on its way from one node to another", hint="ask again in a few seconds")
        self.run = run


class NodeUnreachableError(UnavailableError):
    """The node that works on the run does not answer this one."""

    code = "node-unreachable"

    def __init__(self, *, run: str, url: str, reason: str) -> None:
        super().__init__(
            f"the node at {url}, which works on run {run}, does not answer: {reason}",
            hint="ask again: when it is dead, another node takes the run over within seconds",
        )
        self.run = run
        self.url = url
        self.reason = reason


class KeyFileError(HoplineError):
    """The file of the signing key cannot be used."""

    code = "key-file"


class InsecureAddressError(HoplineError):
    """The API would be reachable from other machines without asking for a token."""

    code = "insecure-address"

    def __init__(self, *, host: str) -> None:
        super().__init__(
            f"listening on {host} would let anyone who reaches this machine run workflows",
            hint="set HOPLINE_API_TOKEN, or listen on 127.0.0.1",
        )
        self.host = host
