"""What is told about a failed attempt: the error's names, its message, and a traceback that begins in users' code."""

import inspect
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hopline
import hopline_engine
from hopline.errors import ArgumentError, DefinitionError, Fail, ResultError, RetryAfter

MESSAGE_LIMIT = 4_000
TRACEBACK_LIMIT = 16_000

_FINAL = (Fail, ArgumentError, DefinitionError, ResultError)
_OURS = tuple(f"{Path(package.__file__).parent}/" for package in (hopline, hopline_engine) if package.__file__)


def describe(error: BaseException) -> dict[str, Any]:
    """Return *error* as the ``error`` object of a worker's answer.

    ``types`` are the names that a ``Retry(on=...)`` may match: the class and its bases, builtins without module.
    ``final`` means that another attempt cannot help.
    """
    types = names(type(error))
    return {
        "type": types[0],
        "types": types,
        "message": _capped(_message(error), MESSAGE_LIMIT),
        "traceback": _capped(_clean(user_traceback(error)), TRACEBACK_LIMIT),
        "retry_after": error.seconds if isinstance(error, RetryAfter) else None,
        "final": isinstance(error, _FINAL),
    }


def describe_late(stack: traceback.StackSummary | None, step: Callable[..., Any]) -> dict[str, Any]:
    """Return the ``error`` of an attempt whose deadline passed: where it was then, ``None`` when it had not begun."""
    message, trace = "the attempt had not begun, since the worker was busy", ""
    if stack is not None:
        users = [frame for frame in stack if not frame.filename.startswith(_OURS)]
        message = f"it was {_place(users, step)}"
        lines = traceback.StackSummary.from_list(users).format()
        trace = f"Traceback (most recent call last):\n{''.join(lines)}TimeoutError: {message}\n"
    types = names(TimeoutError)
    return {
        "type": types[0],
        "types": types,
        "message": message,
        "traceback": _capped(_clean(trace), TRACEBACK_LIMIT),
        "retry_after": None,
        "final": False,
    }


def _place(stack: Sequence[traceback.FrameSummary], step: Callable[..., Any]) -> str:
    """Return the last place of *stack* in the file of *step*, where users look, however deep below it is."""
    file = inspect.unwrap(step).__code__.co_filename if inspect.isfunction(inspect.unwrap(step)) else None
    for frame in reversed(stack):
        if file in {None, frame.filename}:
            return f"in {frame.name}, {Path(frame.filename).name}:{frame.lineno}"
    return "outside the step's file"


def names(kind: type[BaseException]) -> list[str]:
    """Return the qualified names of *kind* and its bases, nearest first.

    >>> names(FileNotFoundError)
    ['FileNotFoundError', 'OSError', 'Exception', 'BaseException']
    """
    return [
        base.__qualname__ if base.__module__ == "builtins" else f"{base.__module__}.{base.__qualname__}"
        for base in kind.__mro__
        if base is not object
    ]


def user_traceback(error: BaseException) -> str:
    """Return the traceback of *error* and of what caused it, without the frames of Hopline."""
    summary = traceback.TracebackException.from_exception(error)
    _drop_our_frames(summary, set())
    return "".join(summary.format())


def _drop_our_frames(summary: traceback.TracebackException, seen: set[int]) -> None:
    if id(summary) in seen:
        return
    seen.add(id(summary))
    summary.stack[:] = [frame for frame in summary.stack if not frame.filename.startswith(_OURS)]
    for other in (summary.__cause__, summary.__context__, *(summary.exceptions or ())):
        if other is not None:
            _drop_our_frames(other, seen)


def _message(error: BaseException) -> str:
    try:
        return _clean(str(error))
    except Exception as broken:  # noqa: BLE001 - users' __str__ may raise anything
        return f"({type(error).__name__}.__str__ raised {type(broken).__name__})"


def _clean(text: str) -> str:
    """Replace what JSON or a store cannot hold: lone surrogates and NUL."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def _capped(text: str, limit: int) -> str:
    """Return *text*, or its beginning and end; the end of a traceback names the error."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}\n[... {len(text) - limit} characters left out ...]\n{text[-limit // 2 :]}"
