"""The steps that a workflow closes with: which ones can be, and what they are given."""

from collections.abc import Mapping
from typing import Any, Literal

from hopline.errors import Failure
from hopline.schema import codec
from hopline.shape import Shape
from hopline.steps import Step
from hopline.trace import Reference, Symbol, Wiring

FAILURE = "$failure"
Closes = Literal["on_failure", "finally"]


def _told(why: Failure) -> None:
    """Stand for all that are told of a failure."""


def failure_shape() -> Shape:
    """Return the shape of a ``Failure``."""
    shape = Shape.of(codec(_told).parameters_shape)
    return shape.sub(shape.keyword("properties", {})["why"])


def closing_arguments(
    body: Wiring, workflow: str, closes: Closes, step: Step[..., Any], parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a step is given at the end of a run: the failure, and parameters of the workflow by their names."""
    word = closes if closes == "on_failure" else "finally_"
    if step.kind not in {"python", "http"} or step.upstream:
        body.refuse(f"{workflow}: {word} is {step!r}", "give a step that stands for itself: @step or @http")
    names = list(step.parameters)
    given: dict[str, Any] = {}
    if closes == "on_failure" and names:
        given[names.pop(0)] = Symbol(Reference(body, FAILURE, (), failure_shape()))
    for name in names:
        if name in parameters:
            given[name] = parameters[name]
        elif step.parameters[name].default is step.parameters[name].empty:
            taken = "the Failure first, and then " if closes == "on_failure" else ""
            body.refuse(
                f"{workflow}: {word} is {step.name}(), which takes {name!r}: the workflow has no such parameter",
                f"it is given {taken}parameters of the workflow that are named alike; {step.name}{step.parameter_list}",
            )
    return given
