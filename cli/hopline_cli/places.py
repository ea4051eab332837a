"""Names of queues and tasks on the command line, in full or in short: ``mail`` is in project and location ``local``."""

import re
from dataclasses import dataclass
from typing import Annotated

import typer

from hopline_cli.errors import UsageError

LOCAL = "local"
_QUEUE = re.compile(r"projects/([^/]+)/locations/([^/]+)/queues/([^/]+)")
_TASK = re.compile(r"(projects/[^/]+/locations/[^/]+/queues/[^/]+)/tasks/([^/]+)")

Location = Annotated[
    str | None,
    typer.Option("--location", metavar="LOCATION", help="Location of the queue [local].", show_default=False),
]
Project = Annotated[
    str | None, typer.Option("--project", metavar="PROJECT", help="Project of the queue [local].", show_default=False)
]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuePlace:
    """A queue."""

    project: str
    location: str
    queue: str

    @property
    def parent(self) -> str:
        """Where it is."""
        return f"projects/{self.project}/locations/{self.location}"

    @property
    def name(self) -> str:
        """Its name in full."""
        return f"{self.parent}/queues/{self.queue}"

    @property
    def shown(self) -> str:
        """What people are shown, as gcloud shows it.

        >>> queue_place("mail", None, None).shown
        '[local/mail]'
        """
        return f"[{self.location}/{self.queue}]"


def queue_place(queue: str, project: str | None, location: str | None) -> QueuePlace:
    """Return the queue that a name stands for, in full or in short."""
    match = _QUEUE.fullmatch(queue)
    if match is not None:
        return QueuePlace(project=match[1], location=match[2], queue=match[3])
    return QueuePlace(project=project or LOCAL, location=location or LOCAL, queue=queue)


def task_place(task: str, queue: str | None, project: str | None, location: str | None) -> tuple[QueuePlace, str]:
    """Return the queue and the id of a task, which is named in full or with its queue.

    Raises:
        UsageError: it is named in short, and without its queue.
    """
    match = _TASK.fullmatch(task)
    if match is not None:
        return queue_place(match[1], None, None), match[2]
    if queue is None:
        raise UsageError(f"which queue is task {task!r} in?", hint="add --queue QUEUE, or give the task's name in full")
    return queue_place(queue, project, location), task
