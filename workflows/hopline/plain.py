"""Steps as plain functions: what a call does outside workflow bodies, in tests and in users' own code."""

from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from hopline.errors import NotScheduledError, NotStubbedError, RunningLoopError
from hopline.schedules import ScheduledValue

if TYPE_CHECKING:
    from hopline.decorators import Step


class Substitute(Protocol):
    """Stands in for a step; see ``testing.stub``."""

    def answer(self, arguments: dict[str, Any]) -> Any:
        """Return what the step returns for *arguments*."""


substitutes: ContextVar[dict[Callable[..., Any], Substitute]] = ContextVar("hopline_substitutes", default={})  # noqa: B039 - never mutated
"""What stands in for which function, in this thread or task."""


def run(step: "Step[..., Any]", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run *step* here and now. Its policies do not apply: an exception comes back as it is."""
    substitute = substitutes.get().get(step.fn)
    if substitute is not None:
        return _awaited(step, substitute.answer(step.bind(args, kwargs)))
    if step.kind == "http":
        raise NotStubbedError(
            f"{step.name}() is an HTTP step and sends nothing when called plainly; in a test say what it answers: "
            f"`with hopline.testing.stub({step.name}, answer): ...`; to see the request call {step.name}.fn(...)"
        )
    if step.kind == "workflow":
        _need_values(step, step.bind(args, kwargs))
    return _awaited(step, step.fn(*args, **kwargs))


def _need_values(step: "Step[..., Any]", arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        if type(value) is ScheduledValue:
            raise NotScheduledError(
                f"{step.name}() was not started by a schedule, which would say {name}: pass a value"
            )


def _awaited(step: "Step[..., Any]", value: Any) -> Any:
    return _run_to_end(step, value) if isinstance(value, Coroutine) else value


def _run_to_end(step: "Step[..., Any]", coroutine: Coroutine[Any, Any, Any]) -> Any:
    import asyncio  # a third of the import time of the package, and only for async steps

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    coroutine.close()
    raise RunningLoopError(
        f"{step.name}() is an async step and an event loop is running here: write `await {step.name}.fn(...)`"
    )
