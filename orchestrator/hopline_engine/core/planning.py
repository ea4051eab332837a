"""From a definition to its plan: the steps in their order, each with its number and with those of what it waits for."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from heapq import heappop, heappush
from typing import Any, Final

import msgspec

from hopline_engine.core import undo_steps
from hopline_engine.core.binding import INPUT, compile_expression
from hopline_engine.core.definition import DefinitionSpec, FormatSpec, UndoSpec
from hopline_engine.core.doubts import doubts_of
from hopline_engine.core.drafts import Draft, DraftArm, check_sources
from hopline_engine.core.model import Digest
from hopline_engine.core.order import Order
from hopline_engine.core.plan import HTTP_ROUTE, OF_WORKERS, Arm, Node, On, Plan, PlanError, Route
from hopline_engine.core.regions import Place, Regions
from hopline_engine.core.retry import NamedFailures, RetryPolicy

FORMAT: Final = 1


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
    drafts = {name: Draft.of(node, specs) for name, node in specs.items()}
    open_ended = {name: draft for name, draft in drafts.items() if draft.spec.closes is None}
    for name, draft in open_ended.items():
        check_sources(f"step {name!r}", draft.before, open_ended)
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
    check_sources("the result", result.sources(), open_ended)
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
        doubts=doubts_of(spec, {child: plan.parameters for child, plan in children.items()}),
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


def _topological_order(drafts: Mapping[str, Draft]) -> list[str]:
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
    order: list[str], drafts: Mapping[str, Draft], children: Mapping[str, Plan], regions: Regions
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


def _arm(draft: DraftArm, inside: list[str], index: Mapping[str, int]) -> Arm:
    results = set(draft.value.sources()) - {INPUT}
    return Arm(
        guards=draft.guards,
        value=draft.value,
        steps=tuple(sorted(index[name] for name in draft.steps)),
        inside=tuple(sorted(index[name] for name in inside)),
        needs=tuple(sorted(index[name] for name in {*draft.steps, *results})),
    )


def _node(
    draft: Draft,
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
