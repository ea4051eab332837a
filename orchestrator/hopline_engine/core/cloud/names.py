"""Names of queues and tasks: how they are written, which are legal, and how the engine calls the queues inside.

A queue of project ``local`` in location ``local`` is the queue that steps call by its id alone; all others keep their
full name inside, so that the same id in two projects is two queues.
"""

import re
from typing import Final, NamedTuple

from hopline_engine.core.cloud.errors import HELP, CloudTasksError, invalid

LOCAL: Final = "local"

PROJECT_ID: Final = r"[A-Za-z0-9:.-]{1,200}"
LOCATION_ID: Final = r"[A-Za-z0-9-]{1,100}"
QUEUE_ID: Final = r"[A-Za-z0-9-]{1,100}"
TASK_ID: Final = r"[A-Za-z0-9_-]{1,500}"

_PARENT: Final = re.compile(rf"projects/({PROJECT_ID})/locations/({LOCATION_ID})")
_QUEUE: Final = re.compile(rf"projects/({PROJECT_ID})/locations/({LOCATION_ID})/queues/({QUEUE_ID})")
_TASK: Final = re.compile(r"(projects/[^/]*/locations/[^/]*/queues/[^/]*)/tasks/(.*)", re.DOTALL)
_TASK_ID: Final = re.compile(TASK_ID)


class LocationName(NamedTuple):
    """A project and a location."""

    project: str
    location: str

    def __str__(self) -> str:
        return f"projects/{self.project}/locations/{self.location}"


class QueueName(NamedTuple):
    """A queue."""

    project: str
    location: str
    queue: str

    @property
    def parent(self) -> LocationName:
        """Where it is."""
        return LocationName(self.project, self.location)

    @property
    def key(self) -> str:
        """What the engine calls it.

        >>> QueueName("local", "local", "mail").key, QueueName("p", "l", "mail").key
        ('mail', 'projects/p/locations/l/queues/mail')
        """
        return self.queue if self.project == self.location == LOCAL else str(self)

    def __str__(self) -> str:
        return f"projects/{self.project}/locations/{self.location}/queues/{self.queue}"


class TaskName(NamedTuple):
    """A task."""

    queue: QueueName
    task: str

    def __str__(self) -> str:
        return f"{self.queue}/tasks/{self.task}"


def parse_location(name: str) -> LocationName:
    """Return the location that *name* is.

    Raises:
        CloudTasksError: it is none.
    """
    match = _PARENT.fullmatch(name)
    if match is None:
        raise invalid('Location name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>".')
    return LocationName(*match.groups())


def parse_queue(name: str) -> QueueName:
    """Return the queue that *name* is.

    Raises:
        CloudTasksError: it is none.
    """
    match = _QUEUE.fullmatch(name)
    if match is None:
        raise invalid(
            'Queue name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>/queues/<QUEUE_ID>".',
            help_url=HELP,
        )
    return QueueName(*match.groups())


def parse_task(name: str) -> TaskName:
    """Return the task that *name* is.

    Raises:
        CloudTasksError: it is none.
    """
    match = _TASK.fullmatch(name)
    if match is None:
        raise invalid(
            "Task name must be formatted: "
            '"projects/<PROJECT_ID>/locations/<LOCATION_ID>/queues/<QUEUE_ID>/tasks/<TASK_ID>".',
            help_url=HELP,
        )
    if not _TASK_ID.fullmatch(match[2]):
        raise _illegal_task_id(match[2])
    return TaskName(parse_queue(match[1]), match[2])


def parse_new_task(name: str, queue: QueueName) -> TaskName:
    """Return the task that *name* will be in *queue*.

    Raises:
        CloudTasksError: it is no name of a task, or of one in another queue.
    """
    task = parse_task(name)
    if task.queue != queue:
        raise invalid(
            f"The queue name from request ('{queue}') must be the same as the queue name in the named task "
            f"('{task.queue}')."
        )
    return task


def queue_of_key(key: str) -> QueueName:
    """Return the queue that the engine calls *key*."""
    match = _QUEUE.fullmatch(key)
    return QueueName(*match.groups()) if match else QueueName(LOCAL, LOCAL, key)


def _illegal_task_id(task: str) -> CloudTasksError:
    return invalid(
        f'Task ID "{task}" can contain only letters ([A-Za-z]), numbers ([0-9]), hyphens (-), or underscores (_). '
        "Task ID must between 1 and 500 characters.",
        help_url=HELP,
    )
