"""The arguments of one call in a workflow body: checked against the step's parameters, turned into expressions."""

from typing import TYPE_CHECKING, Any

from hopline.definition import Expr
from hopline.expressions import is_literal, literal_value
from hopline.fit import misfit
from hopline.schedules import ScheduledValue
from hopline.schema import Codec
from hopline.shape import Shape
from hopline.trace import is_symbol, reference_of

if TYPE_CHECKING:
    from hopline.steps import Step
    from hopline.wiring import BodyTrace


def argument(trace: "BodyTrace", step: "Step[..., Any]", own: Codec, name: str, value: object, *, each: bool) -> Expr:
    """Return the expression of one argument; refuse one that does not fit, of a map if one of *each* does not."""
    what = f"{step.name}(): {name}"
    if type(value) is ScheduledValue:  # not isinstance, which symbols refuse
        trace.refuse(
            f"{what} is {value!r}, and {step.name} is not started by its schedule here",
            f"pass it on: {trace.workflow.name} can have a parameter with the default {value!r}",
        )
    expr = trace.encoder(what, secrets=step.kind == "http").encode(value)
    problem = _problem(own, name, value, expr, each)
    if problem:
        trace.refuse(f"{what} does not fit its type: {problem}", f"its parameters are {step.name}{step.parameter_list}")
    return expr


def listed(trace: "BodyTrace", step: "Step[..., Any]", items: Any) -> Any:
    """Return what a step is mapped over: a list, or a result that is one."""
    if is_symbol(items):
        reference = reference_of(items)
        if reference.shape.element() is None:
            trace.refuse(
                f"{step.name}.map() goes over {reference}, which is {reference.shape.words()}",
                f"map needs a list; for one value call {step.name}(...)",
            )
        return items
    if isinstance(items, str | bytes | dict | set | frozenset):
        trace.refuse(
            f"{step.name}.map() goes over a {type(items).__name__}",
            "give a list; of a set or dict make one with sorted()",
        )
    try:
        return list(items)
    except TypeError:
        trace.refuse(f"{step.name}.map() goes over a {type(items).__name__}", "give a list, or a result that is one")


def _problem(own: Codec, name: str, value: object, expr: Expr, each: bool) -> str | None:
    if is_literal(expr):
        given = literal_value(expr) if each else [literal_value(expr)]
        return next((problem for one in given if (problem := own.mismatch(name, one))), None)
    place = Shape.of(own.parameters_shape).at(name)
    if place is None:
        return None
    return misfit(value, place[1].listed() if each else place[1])
