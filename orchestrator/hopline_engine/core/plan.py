"""The plan of a workflow: its definition checked, numbered and ready to be decided on.

A plan is built once per definition and shared by all its runs. Everything a decision needs per event is an index or
a tuple here, so that work per event is proportional to a step's out-degree and never to the size of the graph.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from typing import Any, Final, Literal, NamedTuple

import msgspec

from hopline_engine.core import undo_steps
from hopline_engine.core.binding import (
    FAILURE,
    INPUT,
    ITEM,
    Expression,
    Object,
    Ref,
    RequestTemplate,
    compile_expression,
    compile_object,
    compile_request,
)
from hopline_engine.core.conditions import Condition, Guard, compile_condition, compile_guards
from hopline_engine.core.definition import (
    ArmSpec,
    DefinitionSpec,
    FormatSpec,
    Kind,
    LoopSpec,
    NodeSpec,
    QueueSpec,
    UndoSpec,
)
from hopline_engine.core.model import Digest
from hopline_engine.core.order import Order
from hopline_engine.core.regions import Place, Regions
from hopline_engine.core.retry import NamedFailures, RetryPolicy
from hopline_engine.core.schedules import ScheduleSpec

FORMAT: Final = 1
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

    def node(self, index: int) -> Node | None:
        """Return a step or an undo step by its index."""
        return self.nodes[index] if 0 <= index < len(self.nodes) else self.undos.get(index)


def build_plan(definition: Mapping[str, Any], digest: Digest, children: Mapping[str, "Plan"]) -> Plan:
    """Return the plan of a definition.

    Args:
        definition: the definition as decoded JSON.
        digest: its version.
        children: plans of the workflows it calls, by digest.

    Raises:
        PlanError: it is malformed, names a step or workflow that does not exist, or has a cycle.
    """
    try:
        given = msgspec.convert(definition, FormatSpec).format
        if given != FORMAT:
            raise PlanError(f"definition format {given} is not {FORMAT}; upgrade the server")
        return _build(msgspec.convert(definition, DefinitionSpec), digest, children)
    except PlanError:
        raise
    except ValueError as error:
        raise PlanError(f"malformed definition: {error}") from error
    except RecursionError as error:
        raise PlanError("malformed definition: its values are nested too deep") from error


def _build(spec: DefinitionSpec, digest: Digest, children: Mapping[str, Plan]) -> Plan:
    specs = {node.id: node for node in spec.nodes}
    if len(specs) != len(spec.nodes):
        raise PlanError("two steps have the same id")
    drafts = {name: _Draft.of(node, specs) for name, node in specs.items()}
    open_ended = {name: draft for name, draft in drafts.items() if draft.spec.closes is None}
    for name, draft in open_ended.items():
        _check_sources(f"step {name!r}", draft.before, open_ended)
    turn = next((name for name, draft in drafts.items() if draft.spec.kind == "turn"), None)
    if turn is not None:  # all wait for it, not only the first: a retry may keep the results of those
        open_ended = {name: draft.after(turn) for name, draft in open_ended.items()}
        drafts |= open_ended
    order = _topological_order(drafts)
    regions = Regions({name: [arm.steps for arm in draft.arms] for name, draft in drafts.items() if draft.arms})
    regions.check({name: draft.before for name, draft in drafts.items() if not draft.arms})
    nodes = _number(order, drafts, children, regions)
    result = compile_expression(spec.result)
    by_id = {node.id: node for node in nodes}
    _check_sources("the result", result.sources(), open_ended)
    undos = [_undo(node, undo) for node in nodes if (undo := specs[node.id].undo) is not None]
    by_id |= {undo.id: undo for undo in undos}
    if len(by_id) != len(nodes) + len(undos):
        raise PlanError("two steps have the same id")
    return Plan(
        name=spec.name,
        digest=digest,
        nodes=nodes,
        by_id=by_id,
        result=result,
        parameters=spec.parameters,
        queues=tuple(spec.queues),
        schedule=spec.schedule,
        routes=frozenset(_routes((*nodes, *undos))),
        on=_on(spec),
        undos={undo.index: undo for undo in undos},
        compensates=spec.compensate,
        turn=next((node for node in nodes if node.kind == "turn"), None),
        closing=tuple(node for node in nodes if node.closes),
        deadline=spec.deadline,
    )


def _on(spec: DefinitionSpec) -> On | None:
    if spec.on is None:
        return None
    key = compile_expression(spec.on.key) if spec.on.key is not None else None
    if set(key.sources() if key is not None else ()) - {INPUT}:
        raise PlanError("the key of runs that an event starts refers to more than the parameters")
    if spec.on.parameter not in spec.parameters.get("properties", {}):
        raise PlanError(f"what an event says is to go to the parameter {spec.on.parameter!r}, which does not exist")
    return On(spec.on.event, spec.on.parameter, key)


@dataclass(frozen=True, slots=True)
class _Draft:
    """A node before it has a number."""

    spec: NodeSpec
    inputs: Object
    items: Expression | None
    loop: Loop | None
    request: RequestTemplate | None
    upstream: frozenset[str]
    """Nodes that must succeed as a whole first."""
    stream_from: str | None
    guards: tuple[Guard, ...]
    arms: tuple["_DraftArm", ...]

    @property
    def before(self) -> frozenset[str]:
        """All nodes that it waits for."""
        return self.upstream | {self.stream_from} if self.stream_from else self.upstream

    def after(self, turn: str) -> "_Draft":
        """Return it as it is in a run that begins with a turn."""
        return self if self.spec.id == turn else replace(self, upstream=self.upstream | {turn})

    @classmethod
    def of(cls, spec: NodeSpec, specs: Mapping[str, NodeSpec]) -> "_Draft":
        _check_parts(spec)
        over = spec.over if spec.loop is None else spec.loop.over
        arguments = {name: value for name, value in spec.inputs.items() if name != over}
        if over is not None and spec.unit_kind != "http":
            arguments[over] = {"$ref": ITEM, "path": []}
        inputs = compile_object(arguments)
        items = compile_expression(spec.inputs[over]) if over is not None else None
        request = compile_request(spec.request) if spec.request is not None else None
        stream = _stream(items, specs) if spec.loop is None else None
        loop = _loop(spec.loop)
        before = set(items.sources()) if items is not None and stream is None else set[str]()
        guards = compile_guards(spec.guards)
        arms = tuple(_DraftArm.of(arm) for arm in spec.arms)
        sources = {*inputs.sources(), *(request.sources() if request else ()), *spec.after}
        sources.update(loop.until.sources() if loop is not None else ())
        sources.update(compile_expression(spec.policy.key).sources() if spec.policy.key is not None else ())
        sources.update(*(guard.condition.sources() for guard in guards), *(arm.sources() for arm in arms))
        if ITEM in before or (ITEM in sources and over is None):
            raise PlanError(f"step {spec.id!r} refers to an item where there is none: it is not mapped")
        upstream = frozenset(sources | before) - {INPUT, ITEM}
        if spec.closes is not None:
            upstream -= {FAILURE} if spec.closes == "on_failure" else set()
            _check_closing(spec, upstream, specs)
        _check_sources(f"step {spec.id!r}", upstream, specs)
        return cls(spec, inputs, items, loop, request, upstream, stream, guards, arms)


@dataclass(frozen=True, slots=True)
class _DraftArm:
    """An arm before its steps have numbers."""

    guards: tuple[Guard, ...]
    value: Expression
    steps: tuple[str, ...]

    @classmethod
    def of(cls, spec: ArmSpec) -> "_DraftArm":
        return cls(compile_guards(spec.guards), compile_expression(spec.value), tuple(spec.steps))

    def sources(self) -> Iterator[str]:
        for guard in self.guards:
            yield from guard.condition.sources()
        yield from self.value.sources()
        yield from self.steps


def _check_parts(spec: NodeSpec) -> None:
    """Check that a step has the parts that its kind needs."""
    if bool(spec.arms) != (spec.kind in CHOICES):
        raise PlanError(f"step {spec.id!r} is of kind {spec.kind!r}: exactly branch, recover and first have arms")
    if any(bool(arm.steps) == (spec.kind == "branch") for arm in spec.arms):
        raise PlanError(f"step {spec.id!r} is of kind {spec.kind!r}: exactly arms of recover and first have steps")
    if spec.kind == "recover" and len(spec.arms) != 1:
        raise PlanError(f"step {spec.id!r} is of kind 'recover' and has {len(spec.arms)} arms, not 1")
    if spec.kind in CHOICES and spec.over is not None:
        raise PlanError(f"step {spec.id!r} is of kind {spec.kind!r}, which cannot be mapped")
    if (spec.request is not None) != (spec.unit_kind == "http"):
        raise PlanError(f"step {spec.id!r} is of kind {spec.kind!r}: exactly HTTP steps have a request")
    if (spec.workflow is not None) != (spec.unit_kind == "workflow"):
        raise PlanError(f"step {spec.id!r} is of kind {spec.kind!r}: exactly steps of kind 'workflow' call one")
    if spec.kind in WAITS and (spec.over is not None or not WAITS[spec.kind] & spec.inputs.keys()):
        inputs = " or ".join(sorted(WAITS[spec.kind]))
        raise PlanError(f"step {spec.id!r} is of kind {spec.kind!r}: it is not mapped, and has the input {inputs}")
    _check_map(spec)


def _loop(spec: LoopSpec | None) -> Loop | None:
    return None if spec is None else Loop(compile_condition(spec.until), spec.limit, spec.every or 0.0)


def _check_map(spec: NodeSpec) -> None:
    """Check that only a mapped step has what maps have, and only a loop what loops have."""
    if (spec.loop is not None) != (spec.kind == "loop"):
        raise PlanError(f"step {spec.id!r} is of kind {spec.kind!r}: exactly loops are repeated")
    if spec.loop is not None and (spec.over is not None or spec.loop.over not in spec.inputs):
        raise PlanError(f"step {spec.id!r} is a loop: it is not mapped, and {spec.loop.over!r} is among its inputs")
    if spec.over is not None and spec.over not in spec.inputs:
        raise PlanError(f"step {spec.id!r} is mapped over {spec.over!r}, which is not among its inputs")
    if spec.policy.batch is not None and (spec.over is None or spec.kind != "python"):
        raise PlanError(f"step {spec.id!r} has a batch: only mapped Python steps are called for several elements")
    if spec.settled and spec.over is None:
        raise PlanError(f"step {spec.id!r} settles elements where there are none: it is not mapped")
    if spec.policy.key is not None and (spec.policy.batch is not None or spec.unit_kind not in {"python", "http"}):
        raise PlanError(f"step {spec.id!r} has a key: only steps that are sent, each task by itself, have one")


def _check_closing(spec: NodeSpec, upstream: Collection[str], specs: Mapping[str, NodeSpec]) -> None:
    """Check that a step that runs when all others have ended stands for itself."""
    others = [other.id for other in specs.values() if other.closes == spec.closes]
    if upstream or spec.guards or spec.over is not None or spec.kind not in {"python", "http"}:
        raise PlanError(f"step {spec.id!r} runs at the end of a run: it can be given the input and the failure alone")
    if len(others) > 1:
        raise PlanError(f"steps {others} all run at the end of a run as {spec.closes}: there can be one")


def _stream(items: Expression | None, specs: Mapping[str, NodeSpec]) -> str | None:
    """Return the mapped step that a map over *items* can follow element by element."""
    if isinstance(items, Ref) and not items.path and items.source in specs and specs[items.source].over is not None:
        return items.source
    return None


def _check_sources(who: str, sources: Iterator[str] | frozenset[str], known: Mapping[str, object]) -> None:
    for source in sources:
        if source not in known and source != INPUT:
            raise PlanError(f"{who} needs {source!r}, which does not exist")


def _topological_order(drafts: Mapping[str, _Draft]) -> list[str]:
    """Return the steps, each behind those it waits for; of those that could come next, the first by name.

    Those that run when everything else has ended stand at the end.

    Rows name a step by its place in this order, so it must be the same wherever and whenever a plan is built.
    """
    sorter: TopologicalSorter[str] = TopologicalSorter()
    closing = [name for which in ("on_failure", "finally") for name in drafts if drafts[name].spec.closes == which]
    for name, draft in drafts.items():
        if draft.spec.closes is None:
            sorter.add(name, *draft.before)
    try:
        sorter.prepare()
    except CycleError as error:
        raise PlanError(f"cycle: {' -> '.join(error.args[1])}") from None
    order: list[str] = []
    ready: list[str] = []
    while sorter.is_active():
        for name in sorter.get_ready():
            heappush(ready, name)
        order.append(heappop(ready))
        sorter.done(order[-1])
    return order + closing


def _number(
    order: list[str], drafts: Mapping[str, _Draft], children: Mapping[str, Plan], regions: Regions
) -> tuple[Node, ...]:
    index = {name: position for position, name in enumerate(order)}
    downstream: dict[str, list[int]] = {name: [] for name in order}
    streams: dict[str, list[int]] = {name: [] for name in order}
    levels: dict[str, int] = {}
    optional: set[str] = set()
    insides = regions.inside()
    for name in order:
        draft = drafts[name]
        for upstream in draft.upstream:
            downstream[upstream].append(index[name])
        if draft.stream_from:
            streams[draft.stream_from].append(index[name])
        before = levels if draft.spec.closes else draft.before
        levels[name] = 1 + max((levels[upstream] for upstream in before), default=-1)
        inherits = not draft.arms or draft.spec.kind == "first"
        if draft.guards or (inherits and not optional.isdisjoint(draft.before)):
            optional.add(name)
    return tuple(
        _node(
            drafts[name],
            children,
            index=index[name],
            level=levels[name],
            upstream=tuple(sorted(index[upstream] for upstream in drafts[name].upstream)),
            downstream=tuple(downstream[name]),
            stream_from=index[stream] if (stream := drafts[name].stream_from) else None,
            streams=tuple(streams[name]),
            may_be_skipped=name in optional,
            arms=tuple(
                _arm(arm, insides.get(Place(name, number), []), index) for number, arm in enumerate(drafts[name].arms)
            ),
            within=index[owner] if (owner := regions.within(name)) else None,
        )
        for name in order
    )


def _arm(draft: _DraftArm, inside: list[str], index: Mapping[str, int]) -> Arm:
    results = set(draft.value.sources()) - {INPUT}
    return Arm(
        guards=draft.guards,
        value=draft.value,
        steps=tuple(sorted(index[name] for name in draft.steps)),
        inside=tuple(sorted(index[name] for name in inside)),
        needs=tuple(sorted(index[name] for name in {*draft.steps, *results})),
    )


def _node(
    draft: _Draft,
    children: Mapping[str, Plan],
    *,
    index: int,
    level: int,
    upstream: tuple[int, ...],
    downstream: tuple[int, ...],
    stream_from: int | None,
    streams: tuple[int, ...],
    may_be_skipped: bool,
    arms: tuple[Arm, ...],
    within: int | None,
) -> Node:
    spec, policy = draft.spec, draft.spec.policy
    child = None
    if spec.workflow is not None:
        child = children.get(spec.workflow.digest)
        if child is None:
            raise PlanError(f"step {spec.id!r} calls workflow {spec.workflow.name!r}, which is not registered")
    return Node(
        index=index,
        id=spec.id,
        kind=spec.unit_kind,
        step=spec.step,
        route=Route(spec.step, spec.signature) if spec.unit_kind in OF_WORKERS else HTTP_ROUTE,
        inputs=draft.inputs,
        items=draft.items,
        loop=draft.loop,
        over=spec.over,
        settled=spec.settled,
        request=draft.request,
        child=child,
        retry=RetryPolicy.from_spec(policy.retry),
        timeout=policy.timeout,
        deadline=policy.deadline,
        queue=policy.queue,
        max_parallel=policy.max_parallel,
        callback=policy.callback,
        every=policy.every,
        batch=policy.batch or 1,
        result=spec.result,
        upstream=upstream,
        downstream=downstream,
        stream_from=stream_from,
        streams=streams,
        waits=len(upstream) + (stream_from is not None) + (spec.closes is not None),
        level=level,
        guards=draft.guards,
        may_be_skipped=may_be_skipped,
        arms=arms,
        on=NamedFailures.from_spec(spec.on),
        within=within,
        closes=spec.closes,
        order=Order.of(policy),
    )


def _undo(node: Node, spec: UndoSpec) -> Node:
    route = Route(spec.step, spec.signature) if spec.kind in OF_WORKERS else HTTP_ROUTE
    return replace(node, route=route, **undo_steps.parts_of(spec, node.index))


def _routes(nodes: tuple[Node, ...]) -> Iterator[Route]:
    for node in nodes:
        if node.kind in OF_WORKERS:
            yield node.route
        if node.child:
            yield from node.child.routes


def child_digests(definition: bytes) -> list[str]:
    """Return the digests of the workflows that a definition calls directly."""
    decoded = msgspec.json.decode(definition)
    return [spec["workflow"]["digest"] for spec in decoded["nodes"] if spec["workflow"] is not None]
