"""Where in the user's files something was written, for error messages only; nothing here enters a definition."""

import inspect
import linecache
import sys
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, NamedTuple

_SEARCHED_LINES = 50  # decorators above a def seldom take more


class Location(NamedTuple):
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def of_function(fn: Callable[..., Any]) -> Location:
    """Return the line of *fn*'s ``def``; a code object itself starts at its first decorator."""
    code = inspect.unwrap(fn).__code__
    first = code.co_firstlineno
    if code.co_name == "<lambda>":
        return Location(code.co_filename, first)
    for line in range(first, first + _SEARCHED_LINES):
        text = linecache.getline(code.co_filename, line).lstrip()
        if text.startswith(("def ", "async def ")):
            return Location(code.co_filename, line)
    return Location(code.co_filename, first)


def files_of(fn: Callable[..., Any]) -> frozenset[str]:
    """Return the files that *fn* is written in: its own, and that of the function it wraps."""
    return frozenset({fn.__code__.co_filename, inspect.unwrap(fn).__code__.co_filename})


def of_caller() -> Location:
    """Return the innermost line being executed outside this package."""
    for frame in _frames(sys._getframe(1)):  # noqa: SLF001 - inspect.stack() reads source files, this does not
        if not _is_ours(frame):
            return Location(frame.f_code.co_filename, frame.f_lineno)
    return Location("<unknown>", 0)


def of_call_within(files: frozenset[str], otherwise: Location) -> Location:
    """Return the innermost line being executed in one of *files*.

    Libraries may stand between the user's line and us (``json.dumps(result)``), so the innermost foreign line is not
    always the user's.
    """
    for frame in _frames(sys._getframe(1)):  # noqa: SLF001
        if frame.f_code.co_filename in files and not _is_ours(frame):
            return Location(frame.f_code.co_filename, frame.f_lineno)
    return otherwise


def of_failure_within(files: frozenset[str], traceback: TracebackType | None, otherwise: Location) -> Location:
    """Return the last line in one of *files* that *traceback* passed through."""
    found = otherwise
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename in files:
            found = Location(traceback.tb_frame.f_code.co_filename, traceback.tb_lineno)
        traceback = traceback.tb_next
    return found


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_ours(frame: FrameType) -> bool:
    # By module name and not by file: the __init__ that dataclasses generate has no file.
    name = str(frame.f_globals.get("__name__", ""))
    return name == "hopline" or name.startswith("hopline.")
