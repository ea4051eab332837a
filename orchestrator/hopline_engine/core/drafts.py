"""The steps of a definition, each checked by itself and in what it names, before they have numbers."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from hopline_engine.core.binding import (
    FAILURE,
    INPUT,
    ITEM,
    Expression,
    Object,
    Ref,
    compile_expression,
    compile_object,
)
from hopline_engine.core.conditions import Guard, compile_condition, compile_guards
from hopline_engine.core.definition import ArmSpec, LoopSpec, NodeSpec
from hopline_engine.core.plan import CHOICES, WAITS, Loop, PlanError
from hopline_engine.core.requests import RequestTemplate, compile_request


@dataclass(frozen=True, slots=True)
class Draft:
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
    arms: tuple["DraftArm", ...]

    @property
    def before(self) -> frozenset[str]:
        """All nodes that it waits for."""
        return self.upstream | {self.stream_from} if self.stream_from else self.upstream

    def after(self, turn: str) -> "Draft":
        """Return it as it is in a run that begins with a turn."""
        return self if self.spec.id == turn else replace(self, upstream=self.upstream | {turn})

    @classmethod
    def of(cls, spec: NodeSpec, specs: Mapping[str, NodeSpec]) -> "Draft":
        """Return the draft of a step among the steps of its definition, by their ids.

        Raises:
            PlanError: its parts contradict each other, or it names what does not exist or is not to be had there.
        """
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
        arms = tuple(DraftArm.of(arm) for arm in spec.arms)
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
        check_sources(f"step {spec.id!r}", upstream, specs)
        return cls(spec, inputs, items, loop, request, upstream, stream, guards, arms)


@dataclass(frozen=True, slots=True)
class DraftArm:
    """An arm before its steps have numbers."""

    guards: tuple[Guard, ...]
    value: Expression
    steps: tuple[str, ...]

    @classmethod
    def of(cls, spec: ArmSpec) -> "DraftArm":
        """Return the draft of an arm."""
        return cls(compile_guards(spec.guards), compile_expression(spec.value), tuple(spec.steps))

    def sources(self) -> Iterator[str]:
        """Yield what it refers to, and the steps inside of it."""
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


def check_sources(who: str, sources: Iterator[str] | frozenset[str], known: Mapping[str, object]) -> None:
    """Refuse a reference to a step that does not exist, or whose result is not to be had there."""
    for source in sources:
        if source not in known and source != INPUT:
            raise PlanError(f"{who} needs {source!r}, which does not exist")
