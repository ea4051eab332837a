"""What can go wrong, and the exceptions that steps raise to steer the engine.

::

    HoplineError
    ├── DefinitionError      a workflow file says something that cannot run
    ├── ArgumentError        the arguments of a task do not fit the step's parameters
    ├── ResultError          a step returned what cannot be stored
    ├── NotStubbedError      an HTTP step was called plainly, without engine and without stub
    ├── NotScheduledError    a workflow was called plainly, without the values that a schedule would give
    ├── LoopLimitError       a loop has had all its laps and its condition still does not hold
    └── RunningLoopError     an async step was called plainly inside a running event loop

    Fail, RetryAfter         raised by steps on purpose; control flow, not errors of Hopline
"""

from dataclasses import dataclass

from hopline import durations, source


class HoplineError(Exception):
    """Any error of Hopline's own: ``code`` is stable for programs, ``message`` and ``hint`` are for people."""

    code = "error"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class DefinitionError(HoplineError):
    """A workflow, step or policy is wrong as written; nothing has run.

    ``file`` and ``line`` are the user's: the offending call in the workflow body where there is one, else the ``def``.
    ``hint`` says what to do instead.
    """

    code = "definition-error"

    def __init__(self, message: str, file: str | None = None, line: int | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.file = file
        self.line = line

    def __str__(self) -> str:
        place = f" ({self.file}:{self.line})" if self.file else ""
        hint = f"\nhint: {self.hint}" if self.hint else ""
        return f"{self.message}{place}{hint}"


def definition_error(message: str, hint: str | None = None, at: source.Location | None = None) -> DefinitionError:
    """Return the error for *at*, which is the line that called into this package when it is not given."""
    place = at or source.of_caller()
    return DefinitionError(message, place.file, place.line, hint)


class ArgumentError(HoplineError):
    """The JSON arguments of a task do not fit the parameters of the step."""


class ResultError(HoplineError):
    """A step returned a value that is not of its return type, or that JSON cannot say."""


class NotStubbedError(HoplineError):
    """An HTTP step was called as a plain function; it has no body to run."""


class NotScheduledError(HoplineError):
    """A workflow was called as a plain function without a value that otherwise its schedule gives."""


class LoopLimitError(HoplineError):
    """A loop has had as many laps as it may have. In a run, the step fails with a failure of this name."""


class RunningLoopError(HoplineError):
    """An async step was called as a plain function where an event loop is running already."""


class Fail(Exception):  # noqa: N818 - an instruction to the engine, not an error
    """Raise in a step to fail it now: no further attempt is made, whatever its retry policy says."""


class RetryAfter(Exception):  # noqa: N818 - an instruction to the engine, not an error
    """Raise in a step to be tried again after *wait*: seconds, or a duration such as ``"2m30s"``."""

    def __init__(self, wait: float | str, message: str = "") -> None:
        self.seconds = durations.parse(wait) if isinstance(wait, str) else float(wait)
        if not 0 <= self.seconds <= durations.LONGEST:
            raise ValueError(f"{wait!r} is not a time to wait: it lies between 0 s and 10 years")
        super().__init__(message or f"try again in {self.seconds:g} s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a step of a run failed, as handed to whatever handles the failure."""

    step: str
    """The node id of the step that failed."""
    error: str
    """What its last attempt said."""
    type: str = "Exception"
    """The class of the exception, or what kind of failure it was, as ``HTTPError`` and ``DeadlineExceeded``."""
    status: int | None = None
    """The HTTP status of the answer, if there was one."""
    attempts: int = 1
    """How many were made of it."""
    run: str = "local"
    """The id of the run."""
    run_url: str = ""
    """Where the run is looked at."""
