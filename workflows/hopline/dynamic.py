"""``@dynamic``: a workflow whose body runs once in each run, with real values, and is pinned as data from then on."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from hopline.policy import Policy
from hopline.steps import Workflow

P = ParamSpec("P")
R = TypeVar("R")


class Dynamic(Workflow[P, R]):
    """A workflow that a worker traces when it is called; made by ``@dynamic``. In other workflows it is a step."""

    def __repr__(self) -> str:
        return f"<dynamic workflow {self.name}>"


def dynamic(fn: Callable[P, R], /) -> Dynamic[P, R]:
    """Make a function that wires steps a workflow whose graph depends on its arguments.

    A worker runs the body once for each call, with the real arguments, so ``if`` and ``for`` over them are plain
    Python; results of the steps in it are as unknown as in every workflow. What it wired is stored before any of its
    steps starts, and the body never runs again for that call.
    """
    return Dynamic(fn, "dynamic", Policy())
