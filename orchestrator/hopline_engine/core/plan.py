"""The plan of a workflow: its definition checked, numbered and ready to be decided on.

A plan is built once per definition and shared by all its runs. Everything a decision needs per event is an index or
a tuple here, so that work per event is proportional to a step's out-degree and never to the size of the graph.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from hopline.definition import Kind
from hopline_engine.core.binding import Expression, Object
from hopline_engine.core.conditions import Condition, Guard
from hopline_engine.core.definition import QueueSpec
from hopline_engine.core.doubts import NO_DOUBTS, Doubts
from hopline_engine.core.model import Digest
from hopline_engine.core.order import Order
from hopline_engine.core.requests import RequestTemplate
from hopline_engine.core.retry import NamedFailures, RetryPolicy
from hopline_engine.core.schedules import ScheduleSpec

DEFAULT_QUEUE: Final = "default"
WAITS: Final[Mapping[Kind, frozenset[str]]] = {
    "sleep": frozenset({"seconds", "until"}),
    "event": frozenset({"key"}),
    "approval": frozenset({"prompt"}),
    "turn": frozenset({"limit"}),
}
"""Kinds of steps that are never sent and wait, each with inputs of which it has one."""
OF_WORKERS: Final = frozenset({"python", "dynamic"})
"""Kinds of steps whose tasks workers take."""


class PlanError(ValueError):
    """A definition cannot be run; the message says where and why."""


class Route(NamedTuple):
    """Where the task of a step can be executed: by workers that serve this step, or by any dispatcher (HTTP)."""

    step: str
    signature: str


HTTP_ROUTE: Final = Route("", "")

CHOICES: Final = frozenset[Kind]({"branch", "recover", "first"})
"""Kinds of steps that the engine decides itself."""


class Arm(NamedTuple):
    """One of the values that a step decided by the engine may get."""

    guards: tuple[Guard, ...]
    """When it is the one, of ``branch``."""
    value: Expression
    steps: tuple[int, ...]
    """The steps inside of it, of ``recover`` and ``first``; not those inside of a ``recover`` or ``first`` there."""
    inside: tuple[int, ...]
    """All steps inside of it."""
    needs: tuple[int, ...]
    """The steps inside of it, and those whose results are part of its value."""


class Loop(NamedTuple):
    """How a step is repeated."""

    until: Condition
    limit: int
    every: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Node:
    """One step of a plan."""

    index: int
    """Position in topological order."""
    id: str
    kind: Kind
    """What one execution of it is; of a loop, what a lap is."""
    step: str
    route: Route
    inputs: Object
    items: Expression | None
    """The list that a mapped step maps over, or what the first lap of a loop is given."""
    loop: Loop | None
    over: str | None
    settled: bool
    """Whether a mapped step gives what became of each element, and elements that fail do not fail it."""
    request: RequestTemplate | None
    child: "Plan | None"
    retry: RetryPolicy
    timeout: float | None
    deadline: float | None
    queue: str
    max_parallel: int | None
    callback: bool
    """Whether every answer of success means that the result comes later."""
    every: float | None
    """Seconds after which a step that found nothing, and answered with null, looks again."""
    batch: int
    """How many elements one call of a worker takes."""
    result: Mapping[str, Any]
    """JSON schema of one result."""
    upstream: tuple[int, ...]
    downstream: tuple[int, ...]
    """Steps that wait for this one to succeed as a whole."""
    stream_from: int | None
    """The mapped step whose elements this one follows one by one."""
    streams: tuple[int, ...]
    """Mapped steps that follow this one element by element."""
    waits: int
    """How many signals this step needs before it opens: upstreams done, its stream opened, everything else ended."""
    level: int
    guards: tuple[Guard, ...]
    may_be_skipped: bool
    """Whether it has guards, or waits for a step that may be skipped."""
    arms: tuple[Arm, ...]
    """Of a step that the engine decides itself. It waits until its upstreams have ended, however they ended."""
    on: NamedFailures
    """The failures that ``recover`` is for."""
    within: int | None
    """The ``recover`` or ``first`` that this step is inside of: the innermost. It decides what a failure means."""
    closes: Literal["on_failure", "finally"] | None
    """Whether it runs when everything else has ended."""
    undoes: int | None = None
    """The step that this one undoes; its own index is that one's, inverted."""
    order: Order | None = None
    """How its tasks stand among the others of the queue, unless first in, first out."""


class On(NamedTuple):
    """The event that starts runs of a workflow."""

    event: str
    parameter: str
    key: Expression | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Plan:
    """A workflow that can be run."""

    name: str
    digest: Digest
    nodes: tuple[Node, ...]
    by_id: Mapping[str, Node]
    result: Expression
    parameters: Mapping[str, Any]
    """JSON schema of the input."""
    queues: tuple[QueueSpec, ...]
    schedule: ScheduleSpec | None
    """When it runs by itself, as its file says."""
    routes: frozenset[Route]
    """What workers must serve so that every step can run, those of sub-workflows included."""
    on: On | None = None
    undos: Mapping[int, Node] = field(default_factory=dict)
    """Undo steps, by their negative indexes. They are no part of the graph."""
    compensates: bool = False
    turn: Node | None = None
    """The step in which a run waits while as many of the workflow are under way as may be."""
    closing: tuple[Node, ...] = ()
    """The steps that run when everything else has ended, in order."""
    deadline: float | None = None
    """Seconds after its start at which a run fails that is still at work."""
    doubts: Doubts = NO_DOUBTS
    """What has to be checked as it runs."""

    def node(self, index: int) -> Node | None:
        """Return a step or an undo step by its index."""
        return self.nodes[index] if 0 <= index < len(self.nodes) else self.undos.get(index)
