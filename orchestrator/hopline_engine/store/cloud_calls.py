"""The calls of the queue service that look first and write then, each as one transaction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection

from hopline_engine.core.cloud import queues as queue_rules
from hopline_engine.core.cloud import tasks as task_rules
from hopline_engine.core.cloud.errors import CloudTasksError, Code, invalid, queue_missing
from hopline_engine.core.cloud.model import CloudTaskId, Queue, QueueState, Task
from hopline_engine.core.cloud.names import QueueName, TaskName, parse_new_task
from hopline_engine.core.cloud.queues import Fields
from hopline_engine.store import cloud_leases, cloud_queues, cloud_tasks
from hopline_engine.store.cloud_leases import Asked
from hopline_engine.store.cloud_tasks import StoredTask

_Given = TypeVar("_Given")
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adding:
    """A task that is asked for."""

    number: CloudTaskId
    fields: Fields
    made_up_id: str
    """Its name, if it is given none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """A task that was added."""

    number: CloudTaskId
    task: Task
    queue: Queue
    made_queue: bool
    """Whether its queue was made for it."""


def update_queue(connection: Connection, name: QueueName, fields: Fields, mask: Sequence[str], now: float) -> Queue:
    """Change a queue, or make it if it is not there; return it.

    Raises:
        CloudTasksError: it cannot be like this.
    """
    old = cloud_queues.find_to_change(connection, name.key)
    if old is None:
        made = queue_rules.queue_from(str(name), fields)
        if not cloud_queues.make(connection, name, made, now):  # another node was first: then it is there to be changed
            return update_queue(connection, name, fields, mask, now)
        return made
    changed = queue_rules.patched(old, fields, mask)
    cloud_queues.change(connection, name, changed)
    return changed


def add_task(connection: Connection, name: QueueName, adding: Adding, now: float, *, creates_queues: bool) -> Added:
    """Add a task, and if *creates_queues* says so, its queue.

    Raises:
        CloudTasksError: the queue is not there, the name is taken or held, or the task cannot be like this.
    """
    queue = cloud_queues.find(connection, name.key, kept=True)
    if queue is None and not creates_queues:
        raise queue_missing()
    made_queue = queue is None
    if queue is None:
        queue = queue_rules.queue_from(str(name), {"pull_target": {}} if "pull_message" in adding.fields else {})
    given = adding.fields.get("name", "")
    task_name = parse_new_task(given, name) if given else TaskName(name, adding.made_up_id)
    task = task_rules.task_from(task_name, queue, adding.fields, now)
    # Not made before the task was found to be right: what is raised here may be caught by a batch.
    if made_queue and not cloud_queues.make(connection, name, queue, now):  # another node was first
        return add_task(connection, name, adding, now, creates_queues=creates_queues)
    cloud_tasks.add(connection, adding.number, queue, task, now, is_named=bool(given))
    return Added(number=adding.number, task=task, queue=queue, made_queue=made_queue)


def add_tasks(
    connection: Connection, name: QueueName, all_of_them: Sequence[Adding], now: float, *, creates_queues: bool
) -> list[Added | CloudTasksError]:
    """Add tasks, each by itself; return what became of each."""

    def add(adding: Adding) -> Added:
        return add_task(connection, name, adding, now, creates_queues=creates_queues)

    return [_outcome(add, adding) for adding in all_of_them]


def once(
    connection: Connection,
    operation: str,
    now: float,
    do: Callable[[Connection], _Found],
    tell: Callable[[_Found], bytes],
) -> tuple[bytes, _Found | None]:
    """Do something, unless an operation of this name was done; return what *tell* said of it, and what was done now.

    Of calls with one name that come at the same time, also to several nodes, one does it and the others wait.
    """
    while not cloud_tasks.begin_operation(connection, operation, now):
        kept = cloud_tasks.operation(connection, operation)
        if kept is not None:  # otherwise it was so old that it was deleted just now
            return kept, None
    done = do(connection)
    told = tell(done)
    cloud_tasks.end_operation(connection, operation, told)
    return told, done


def remove_task(connection: Connection, name: TaskName, now: float) -> None:
    """Delete a task.

    Raises:
        CloudTasksError: it is over, or never was.
    """
    queue = cloud_queues.find(connection, name.queue.key)
    if queue is None:
        raise cloud_tasks.missing(connection, name, now)
    cloud_tasks.remove(connection, name, queue, now)


def remove_tasks(connection: Connection, names: Sequence[TaskName], now: float) -> list[CloudTasksError | None]:
    """Delete tasks, each by itself; return the error of each that could not be."""

    def remove(name: TaskName) -> None:
        remove_task(connection, name, now)

    return [_outcome(remove, name) for name in names]


def lease_tasks(connection: Connection, name: QueueName, asked: Asked, now: float) -> list[StoredTask]:
    """Lease tasks of a pull queue.

    Raises:
        CloudTasksError: the queue is not there, is not a pull queue, or is paused.
    """
    queue = cloud_queues.get(connection, name)
    if not queue.is_pull:
        raise _not_leased()
    if queue.state is not QueueState.RUNNING:
        raise CloudTasksError(Code.FAILED_PRECONDITION, "The queue is paused or disabled.")
    return cloud_leases.lease(connection, name, queue, asked, now)


def acknowledge_task(connection: Connection, name: TaskName, lease_end: float, now: float) -> None:
    """Delete a leased task.

    Raises:
        CloudTasksError: the lease is over, or is another's.
    """
    cloud_leases.acknowledge(connection, name, lease_end, _pull_queue(connection, name), now)


def move_lease(
    connection: Connection, name: TaskName, lease_end: float, seconds: float, now: float, *, full: bool
) -> StoredTask:
    """Let a lease end *seconds* from now.

    Raises:
        CloudTasksError: the lease is over, or is another's.
    """
    _pull_queue(connection, name)
    return cloud_leases.move(connection, name, lease_end, now + seconds, now, full=full)


def _pull_queue(connection: Connection, name: TaskName) -> Queue:
    queue = cloud_queues.get(connection, name.queue)
    if not queue.is_pull:
        raise _not_leased()
    return queue


def _not_leased() -> CloudTasksError:
    return invalid("Only tasks of a pull queue can be leased.")


def _outcome(function: Callable[[_Given], _Found], given: _Given) -> _Found | CloudTasksError:
    try:
        return function(given)
    except CloudTasksError as error:
        return error
