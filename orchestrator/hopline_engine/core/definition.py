"""What a definition looks like as JSON; whatever does not look like this is refused before a plan is made of it.

Only shapes and ranges are here. What the parts mean together is ``core.planning``'s. Members that are not known are
passed over, so that an older engine reads what a newer compiler adds.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hopline.definition import Kind
from hopline.policy import Jitter
from hopline_engine.core.schedules import ScheduleSpec

_CENTURY = 100 * 366 * 86_400
"""Seconds; what lies further ahead has no date that people could be shown."""
_IN_HEADERS_AND_PATHS = r"^[^$\x00-\x20\x7f/?#%\[\]][^\x00-\x20\x7f/?#%\[\]]*\Z"
"""Names of steps are sent in headers and stand in URLs; ``[3]`` after one means an element, and ``$input`` no step."""
_Name = Annotated[str, Meta(min_length=1, max_length=500)]
"""Databases index names, and Postgres does not index a text of some thousand bytes."""
_Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
_Duration = Annotated[float, Meta(gt=0, le=_CENTURY)]
_Wait = Annotated[float, Meta(ge=0, le=_CENTURY)]
_Rate = Annotated[float, Meta(ge=1e-9, le=1e9)]


class RetrySpec(msgspec.Struct, frozen=True):
    """How a step is tried again."""

    attempts: _Count
    first: _Wait
    factor: Annotated[float, Meta(ge=1, le=1e9)]
    max: _Wait
    jitter: Jitter
    on: list[dict[str, Any]]


class PolicySpec(msgspec.Struct, frozen=True):
    """How a step is attempted."""

    retry: RetrySpec | None
    timeout: _Duration | None
    deadline: _Duration | None
    queue: _Name
    max_parallel: _Count | None
    callback: bool = False
    """Whether the answer of an HTTP step is not its result, which is reported later."""
    every: _Duration | None = None
    """Seconds after which a step whose result is null is called again; its own results are never null."""
    batch: _Count | None = None
    key: Any = None
    """Expression of what a task is about; without it, it is about nothing in particular."""
    key_limit: _Count = 1
    priority: Annotated[int, Meta(ge=-5, le=5)] = 0


class CallSpec(msgspec.Struct, frozen=True):
    """The workflow that a step calls."""

    name: str
    digest: str


class RequestSpec(msgspec.Struct, frozen=True):
    """The request of an HTTP step."""

    method: Annotated[str, Meta(pattern="^[A-Z]+$")]
    url: Any
    params: dict[str, Any] = {}
    headers: dict[Annotated[str, Meta(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")], Any] = {}
    json: Any = None
    has_json: bool = False
    cancel: Any = None
    """Where to post when the run is cancelled while the request is out."""


class GuardSpec(msgspec.Struct, frozen=True, rename={"condition": "if", "expected": "is"}):
    """A condition, and what it must be."""

    condition: Any
    expected: bool


class ArmSpec(msgspec.Struct, frozen=True):
    """One of the values that a step decided by the engine may get."""

    value: Any = None
    guards: list[GuardSpec] = []
    """When it is the one, of ``branch``."""
    steps: list[str] = []
    """The steps inside of it, of ``recover`` and ``first``; not those inside of a ``recover`` or ``first`` there."""


class LoopSpec(msgspec.Struct, frozen=True):
    """How a step is repeated: each lap is given the result of the one before."""

    kind: Literal["python", "http", "workflow", "dynamic"]
    """What each lap is."""
    over: str
    """The input that takes what a lap is given; among the step's inputs, what the first one is."""
    until: dict[str, Any]
    """The condition after which there is no further lap; ``$item`` in it is the result of the lap."""
    limit: _Count
    every: _Duration | None = None
    """Seconds between the end of a lap and the next one."""


class UndoSpec(msgspec.Struct, frozen=True):
    """The step that undoes another one. Its inputs refer to the result of that one as the item."""

    id: Annotated[str, Meta(pattern=_IN_HEADERS_AND_PATHS, max_length=500)]
    kind: Literal["python", "http"]
    step: Annotated[str, Meta(pattern=_IN_HEADERS_AND_PATHS, max_length=500)]
    signature: str
    inputs: dict[str, Any]
    request: RequestSpec | None
    result: dict[str, Any]
    policy: PolicySpec


class NodeSpec(msgspec.Struct, frozen=True):
    """One step."""

    id: Annotated[str, Meta(pattern=_IN_HEADERS_AND_PATHS, max_length=500)]
    kind: Kind
    step: Annotated[str, Meta(pattern=_IN_HEADERS_AND_PATHS, max_length=500)]
    signature: str
    inputs: dict[str, Any]
    request: RequestSpec | None
    workflow: CallSpec | None
    over: str | None
    after: list[str]
    result: dict[str, Any]
    policy: PolicySpec
    guards: list[GuardSpec] = []
    """All must pass, or the step is skipped; one after the other, once everything the step waits for has ended."""
    arms: list[ArmSpec] = []
    on: list[dict[str, Any]] = []
    """Which failures ``recover`` is for, as ``RetrySpec.on``; all of them if there is none."""
    settled: bool = False
    loop: LoopSpec | None = None
    undo: UndoSpec | None = None
    closes: Literal["on_failure", "finally"] | None = None
    """Whether it runs when everything else has ended: only after a failure, or always."""

    @property
    def unit_kind(self) -> Kind:
        """What one execution of it is: of a loop, what a lap is."""
        return self.loop.kind if self.loop is not None else self.kind


class QueueSpec(msgspec.Struct, frozen=True):
    """A queue that steps name."""

    name: _Name
    max_dispatches_per_second: _Rate | None
    max_burst_size: _Count | None
    max_concurrent_dispatches: _Count | None


class OnSpec(msgspec.Struct, frozen=True):
    """The event that starts runs of a workflow."""

    event: _Name
    parameter: str
    """The one that takes what the event says."""
    key: Any = None
    """Expression of the key of which there is one run; without it, the key of the event is taken."""


class FormatSpec(msgspec.Struct, frozen=True):
    """The one member that definitions of all formats have."""

    format: int


class DefinitionSpec(msgspec.Struct, frozen=True):
    """A workflow."""

    name: _Name
    parameters: dict[str, Any]
    nodes: list[NodeSpec]
    result: Any
    queues: list[QueueSpec]
    result_schema: dict[str, Any] = {}
    schedule: ScheduleSpec | None = None
    on: OnSpec | None = None
    compensate: bool = False
    """Whether what steps did is undone when a run does not succeed."""
    deadline: _Duration | None = None
    """Seconds after which a run fails that is still at work."""
