"""What can go wrong on the command line, and the exit code each kind has.

CliError              anything that is told in one line, with a hint and without a traceback
  UsageError          the command was not given as it must be
  ServerGone          the server cannot be reached, or went away in the middle
"""

from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    """Exit codes of every command; ``meaning`` is what ``hopline help exit-codes`` says."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Self:
        """Bind a number to its meaning."""
        code = int.__new__(cls, value)
        code._value_ = value
        code.meaning = meaning
        return code

    OK = 0, "done; for run and runs watch: the run succeeded"
    FAILED = 1, "the command failed"
    USAGE = 2, "the command or its input was not given as it must be"
    RUN_FAILED = 3, "the run finished failed or cancelled"
    NOT_ALLOWED = 4, "the server refused the token or the host name"
    NOT_FOUND = 5, "no such run, workflow, step or queue"
    NO_SERVER = 6, "the server could not be reached"
    TIMED_OUT = 7, "a wait took longer than it was allowed to"
    INTERRUPTED = 130, "interrupted with Ctrl-C"


class CliError(Exception):
    """Something a person can act on: printed as ``error[code]: message`` and one ``hint:`` line per hint."""

    def __init__(self, code: str, message: str, *, hint: str | None = None, exit_code: int = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hints = [hint] if hint else []
        self.exit_code = exit_code
        self.also: list[CliError] = []
        """Further errors that were found together with this one."""


class UsageError(CliError):
    """The command was not given as it must be; nothing was done."""

    def __init__(self, message: str, *, hint: str | None = None, code: str = "usage") -> None:
        super().__init__(code, message, hint=hint, exit_code=ExitCode.USAGE)


class ServerGone(CliError):  # noqa: N818 - it is a state of the world, and reads so where it is caught
    """The server cannot be reached, or stopped answering in the middle of an answer."""

    def __init__(self, url: str, reason: str, *, is_order_lost: bool = False) -> None:
        super().__init__(
            "server-unreachable",
            f"no server answers at {url}: {reason}",
            hint="look whether it was done: hopline runs list"
            if is_order_lost
            else "check the address, or start one with: hopline dev PATH",
            exit_code=ExitCode.NO_SERVER,
        )
        self.is_order_lost = is_order_lost
        """Something was asked of it that it may or may not have done."""
