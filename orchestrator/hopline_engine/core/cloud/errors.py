"""The one error of the queue service: a canonical code, a message, and sometimes where to read more.

Codes are those of gRPC. How they look on the wire is the business of ``hopline_engine.queue_api``.
"""

from enum import IntEnum
from typing import Final

from hopline.errors import HoplineError


class Code(IntEnum):
    """Canonical codes of gRPC."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


HELP: Final = "https://cloud.google.com/tasks/docs/reference/rest"
"""Where the original sends people whose names are malformed."""


class CloudTasksError(HoplineError):
    """What the service refuses. Messages that the original was seen to give are given letter by letter."""

    code = "cloud-tasks"

    def __init__(self, status: Code, message: str, *, help_url: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.help_url = help_url
        """A page that the answer links to, as ``google.rpc.Help`` does."""


def invalid(message: str, *, help_url: str | None = None) -> CloudTasksError:
    """Return the error for an argument that cannot be used."""
    return CloudTasksError(Code.INVALID_ARGUMENT, message, help_url=help_url)


def queue_missing() -> CloudTasksError:
    """Return the error for a queue that is not there, or was deleted."""
    return CloudTasksError(
        Code.NOT_FOUND,
        "Queue does not exist. If you just created the queue, wait at least a minute for the queue to initialize.",
    )


def entity_missing() -> CloudTasksError:
    """Return the error for anything else that never was there."""
    return CloudTasksError(Code.NOT_FOUND, "Requested entity was not found.")


def task_gone() -> CloudTasksError:
    """Return the error for a task that is over, while its name is still held."""
    return CloudTasksError(
        Code.NOT_FOUND,
        "The task no longer exists, though a task with this name existed recently. "
        "The task either successfully completed or was deleted.",
    )


def task_exists() -> CloudTasksError:
    """Return the error for a name that a task has, or had a short while ago."""
    return CloudTasksError(Code.ALREADY_EXISTS, "Requested entity already exists")
