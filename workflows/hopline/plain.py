"""Steps as plain functions: what a call does outside workflow bodies, in tests and in users' own code."""

import re
import warnings
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from hopline.errors import Failure, HoplineError, LoopLimitError, NotScheduledError, NotStubbedError, RunningLoopError
from hopline.outcomes import Err, Ok
from hopline.pending import Pending
from hopline.policy import exception_name
from hopline.schedules import ScheduledValue

if TYPE_CHECKING:
    from hopline.steps import Step


_FAILED_STEP = "__hopline_step__"
_STATUS = re.compile(r"[1-5][0-9][0-9]\b")


class Substitute(Protocol):
    """Stands in for a step; see ``testing.stub``."""

    def answer(self, arguments: dict[str, Any]) -> Any:
        """Return what the step returns for *arguments*."""


substitutes: ContextVar[dict[Callable[..., Any], Substitute]] = ContextVar("hopline_substitutes", default={})  # noqa: B039 - never mutated
"""What stands in for which function, in this thread or task."""


deliveries: ContextVar[tuple[tuple[str, str | None, Any], ...]] = ContextVar("hopline_deliveries", default=())
"""Events that have happened for waits in this thread or task: name, key (None for any), and what they say."""


decisions: ContextVar[tuple[Any, ...]] = ContextVar("hopline_decisions", default=())
"""What people decide in this thread or task; the last one counts."""


def decided() -> Any:
    """Return the decision that ``testing.answer`` gave."""
    if not decisions.get():
        raise NotStubbedError(
            "approval() asks nobody in a plain call; "
            "in a test say what is decided: `with hopline.testing.answer(): ...`"
        )
    return decisions.get()[-1]


def delivered(name: str, key: str) -> Any:
    """Return what an event says that ``testing.deliver`` gave."""
    for of, its_key, value in reversed(deliveries.get()):
        if of == name and its_key in {None, key}:
            return value
    raise NotStubbedError(
        f'nothing emits "{name}" with the key "{key}" here, and a plain call does not wait; '
        "in a test say what happens: `with hopline.testing.deliver(event, value): ...`"
    )


def run(step: "Step[..., Any]", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run *step* here and now. Its policies do not apply: an exception comes back as it is, with a note of the step."""
    try:
        value = _run_workflow(step, args, kwargs) if step.kind == "workflow" else _run(step, args, kwargs)
    except Exception as error:
        setattr(error, _FAILED_STEP, step.name)
        raise
    done = _done.get()
    if done is not None and step.undos:
        done.append((step.undos[0], value))
    return value


_done: ContextVar["list[tuple[Step[..., Any], Any]] | None"] = ContextVar("hopline_done", default=None)
"""What would have to be undone of the workflow that runs in this thread or task; ``None`` where nothing would."""


def _run_workflow(step: "Step[..., Any]", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a workflow; when it fails, undo what its steps did if it compensates."""
    done: list[tuple[Step[..., Any], Any]] = []
    token = _done.set(done if getattr(step, "compensate", False) else None)
    try:
        return _run(step, args, kwargs)
    except Exception as error:
        _done.set(None)
        for undo, value in reversed(done):
            _undo(undo, value, error)
        raise
    finally:
        _done.reset(token)


def _undo(step: "Step[..., Any]", value: Any, because: Exception) -> None:
    """Run an undo step; one that fails stops no other, and is told with what made it run."""
    try:
        run(step, (value,), {})
    except NotStubbedError:  # a mistake in the test itself
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the others run
        because.add_note(f"{step.name}(), which was to undo what had been done, failed: {error!r}")


def failure_of(error: Exception) -> Failure:
    """Return what a step is told of another one that raised *error*."""
    step = getattr(error, _FAILED_STEP, "local")
    return Failure(step=step, error=str(error), type=exception_name(type(error)), status=status_of(error))


def status_of(error: Exception) -> int | None:
    """Return the HTTP status that an exception stands for: in a stub, that of the answer which it is raised for.

    >>> status_of(PermissionError("402 Payment Required")), status_of(ValueError("no"))
    (402, None)
    """
    for holder in (error, getattr(error, "response", None)):
        for name in ("status", "status_code", "code"):
            found = getattr(holder, name, None)
            if isinstance(found, int) and not isinstance(found, bool):
                return found
    match = _STATUS.match(str(error))
    return int(match[0]) if match else None


def _run(step: "Step[..., Any]", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
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
        value = _closed(step, args, kwargs)
    else:
        value = _awaited(step, step.fn(*args, **kwargs))
    if isinstance(value, Pending):
        raise NotStubbedError(
            f"{step.name}() returned defer(): its result comes by callback, and nobody calls back here; in a test say "
            f"what it is: `with hopline.testing.stub({step.name}, result): ...`"
        )
    if value is None and step.policy.every is not None:
        raise NotStubbedError(
            f"{step.name}() found nothing yet, and a plain call does not look again; in a test say what it finds: "
            f"`with hopline.testing.stub({step.name}, found): ...`"
        )
    return value


def _closed(step: "Step[..., Any]", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the body of a workflow, and then the steps that it closes with."""
    on_failure, finally_ = getattr(step, "on_failure", None), getattr(step, "finally_", None)
    try:
        value = _awaited(step, step.fn(*args, **kwargs))
    except HoplineError:
        raise
    except Exception as error:
        if on_failure is not None:
            _close(step, on_failure, args, kwargs, failure_of(error))
        if finally_ is not None:
            _close(step, finally_, args, kwargs)
        raise
    if finally_ is not None:
        _close(step, finally_, args, kwargs)
    return value


def _close(
    workflow: "Step[..., Any]",
    step: "Step[..., Any]",
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *failure: Failure,
) -> None:
    """Run a step that a workflow closes with; its own failure changes nothing, but is not passed over in silence."""
    names = list(step.parameters)
    told = dict(zip(names, failure, strict=False))
    given = {name: value for name, value in workflow.bind(args, kwargs).items() if name in names[len(told) :]}
    try:
        run(step, (), {**given, **told})
    except HoplineError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, the outcome of the workflow stays
        warnings.warn(f"{step.name}() failed at the end of {workflow.name}(): {error!r}", RuntimeWarning, stacklevel=2)


def _need_values(step: "Step[..., Any]", arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        if type(value) is ScheduledValue:
            raise NotScheduledError(
                f"{step.name}() was not started by a schedule, which would say {name}: pass a value"
            )


def run_settled(step: "Step[..., Any]", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Ok[Any] | Err:
    """Run *step* here and now, and return also its failure. Mistakes in the test itself come back as they are."""
    try:
        return Ok(run(step, args, kwargs))
    except LoopLimitError as error:
        return Err(exception_name(type(error)), str(error))
    except HoplineError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the step raises is what is asked for
        return Err(exception_name(type(error)), str(error))


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
