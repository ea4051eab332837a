"""The call of a dynamic workflow, as a step that the worker serves: its result is the graph that its body wired."""

from collections.abc import Callable, Mapping
from typing import Any

from hopline import Dynamic, Step
from hopline.compiler import compile_call
from hopline.definition import canonical
from hopline.pinning import pinned


def tracer(workflow: "Dynamic[..., Any]", steps: "Mapping[str, Step[..., Any]]") -> Callable[..., dict[str, Any]]:
    """Return what runs the body of *workflow* with real arguments; the graph may use *steps*, which are served."""

    def serves(step: "Step[..., Any]") -> bool:
        served = steps.get(step.name)
        return served is not None and served.signature == step.signature

    def trace(**arguments: Any) -> dict[str, Any]:
        return pinned(compile_call(workflow, arguments, serves))

    return trace


def dump_graph(graph: dict[str, Any]) -> bytes:
    """Return a graph as the engine takes it."""
    return canonical(graph)
