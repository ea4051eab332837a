"""Loops of one workflow body while it is traced: the node that a loop becomes, and the workflow that its body may be.

A body that is a step or a workflow is called once for each lap. A function is traced once, as a workflow of its own
that has no name in any file; what it uses from around it becomes a parameter of that.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from hopline import durations
from hopline.conditions import literal_shape
from hopline.definition import Definition, Expr, Json, Node
from hopline.expressions import is_literal, literal_value
from hopline.fit import disagreement
from hopline.policy import Policy
from hopline.shape import Shape
from hopline.steps import Step
from hopline.trace import INPUT, ITEM, Reference, Symbol, is_symbol, reference_of

if TYPE_CHECKING:
    from hopline.wiring import BodyTrace

LAP = "lap"
_HINT = "give it a step, a workflow, or a function of one parameter that wires steps: lambda page: load(page)"


@dataclass(frozen=True, slots=True)
class Body:
    """A function that is no workflow of any file, as a trace runs it."""

    fn: Callable[..., Any]
    name: str


class Repeat(NamedTuple):
    """What a loop was given besides its body and its start."""

    until: Callable[..., Any]
    limit: int
    every: str | None

    def to_json(self, kind: str, over: str, condition: Json) -> dict[str, Any]:
        """Return the loop as it stands in a definition."""
        rest = {} if self.every is None else {"every": durations.parse(self.every)}
        return {"kind": kind, "over": over, "until": condition, "limit": self.limit, **rest}


def condition_of(trace: "BodyTrace", repeat: Repeat, result: Shape) -> Json:
    """Return the condition of a loop whose laps have such a result."""
    until: Any = repeat.until
    if is_symbol(until) or isinstance(until, Step) or not callable(until):
        trace.refuse(
            f"loop(until=) is given {repeat.until!r} and not a function",
            "write a lambda that compares the result of a lap: until=lambda result: result.done",
        )
    before = len(trace.nodes)
    value = until(Symbol(Reference(trace, ITEM, (), result)))
    if len(trace.nodes) != before:
        trace.refuse("loop(until=) calls a step", "let the body return what decides, and compare that")
    return trace.control.claim("loop(until=)", value).expr


def check_fit(trace: "BodyTrace", name: str, given: Shape, result: Shape) -> None:
    """Refuse a body whose result cannot be given to its next lap."""
    problem = disagreement(result, given)
    if problem:
        trace.refuse(
            f"the result of {name} cannot be what its next lap is given: {problem}",
            "let the body return what it takes",
        )


def add_traced(trace: "BodyTrace", fn: Callable[..., Any], start: object, repeat: Repeat) -> Symbol:
    """Add the loop of a function, which is traced as a workflow of its own."""
    first = trace.encoder("loop(): start").encode(start)
    shape = reference_of(start).shape if is_symbol(start) else _shape_of(first)
    name = trace.new_id("loop")
    inner, result, result_shape = _traced(trace, fn, f"{trace.workflow.name}.{name}", shape)
    check_fit(trace, "loop()'s body", shape, result_shape)
    definition = Definition(
        name=inner.workflow.name,
        parameters={"type": "object"},
        nodes=inner.nodes,
        result=result,
        result_schema={},
        queues=(),
        children=inner.all_children(),
    )
    trace.adopt(inner, result, definition)
    node = Node(
        id=name,
        kind="loop",
        step=name,
        signature="",
        inputs={LAP: first, **inner.captured},
        workflow={"name": definition.name, "digest": definition.digest},
        result={},
        policy=Policy().to_json(),
        guards=trace.control.guards(),
        loop=repeat.to_json("workflow", LAP, condition_of(trace, repeat, result_shape)),
    )
    trace.add_node(node)
    return Symbol(Reference(trace, node.id, (), result_shape))


def _shape_of(expr: Expr) -> Shape:
    """Return the shape of what the first lap is given; of null it says nothing about the other laps."""
    is_told = is_literal(expr) and isinstance(expr, str | int | float)
    return literal_shape(literal_value(expr)) if is_told else Shape(True)


def _traced(trace: "BodyTrace", fn: Any, name: str, shape: Shape) -> tuple["BodyTrace", Expr, Shape]:
    if is_symbol(fn) or not callable(fn):
        trace.refuse(f"loop() is given {fn!r} as its body", _HINT)
    inner = trace.within(Body(fn, name))
    with inner.entered_within():
        value = fn(Symbol(Reference(inner, INPUT, (LAP,), shape)))
        result = inner.encoder("what loop()'s body returns").encode(value)
    if not inner.nodes:
        trace.refuse("loop()'s body calls no step", _HINT)
    return inner, result, reference_of(value).shape if is_symbol(value) else Shape(True)
