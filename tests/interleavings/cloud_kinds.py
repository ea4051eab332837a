"""The transactions of the queue service, as a node carries each of them out.

Those that begin or lease tasks pass over what another one has locked: such a call may find nothing, and what it leaves
comes with the next one.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection

from hopline_engine.core.cloud.attempts import Ended
from hopline_engine.core.cloud.errors import CloudTasksError
from hopline_engine.core.cloud.model import Attempt, CloudTaskId, Queue, Stage
from hopline_engine.core.cloud.names import QueueName, TaskName
from hopline_engine.core.cloud.queues import Fields, queue_from
from hopline_engine.core.cloud.tasks import task_from
from hopline_engine.store import cloud_calls, cloud_endings, cloud_pushes, cloud_queues, cloud_tasks, queues
from hopline_engine.store.cloud_calls import Adding
from hopline_engine.store.cloud_endings import Ending
from hopline_engine.store.cloud_leases import Asked
from hopline_engine.store.cloud_pushes import Sending
from tests.interleavings.kinds import Kind
from tests.interleavings.world import ALIVE, SILENT, Member
from tests.store.rows import NOW

PUSHED: Final = QueueName("p", "l", "pushed")
PULLED: Final = QueueName("p", "l", "pulled")
NEW: Final = QueueName("p", "l", "new")
OUT: Final = {node: CloudTaskId(number) for number, node in enumerate((*ALIVE, SILENT), start=1)}
"""Tasks of which each node has an attempt out."""
DUE, LEASED, AVAILABLE = CloudTaskId(11), CloudTaskId(12), CloudTaskId(13)
LATER: Final = NOW + 10.0
LEASE_SECONDS: Final = 100.0
HELD_UNTIL: Final = NOW + 1000.0
HTTP: Final = {"http_request": {"url": "http://target.example/"}}
PULL: Final = {"pull_message": {"payload": b"x"}}
OPERATION: Final = "batch"


def fill(connection: Connection) -> None:
    """Make the queues and their tasks."""
    cloud_calls.update_queue(connection, PUSHED, {}, [], NOW)
    cloud_calls.update_queue(connection, PULLED, {"pull_target": {}}, [], NOW)
    for node, number in OUT.items():
        _add(connection, PUSHED, number)
        cloud_pushes.begin(connection, {PUSHED.key: [number]}, node, NOW)
    _add(connection, PUSHED, DUE)
    _add(connection, PULLED, LEASED)
    _lease(connection, NOW)
    _add(connection, PULLED, AVAILABLE)


def _name(queue: QueueName, number: int) -> TaskName:
    return TaskName(queue, f"t{number}")


def _add(connection: Connection, queue: QueueName, number: int, name: str = "", *, makes: bool = False) -> None:
    task = TaskName(queue, name) if name else _name(queue, number)
    fields: Fields = {"name": str(task), **(PULL if queue is PULLED else HTTP)}
    adding = Adding(number=CloudTaskId(number), fields=fields, made_up_id="1")
    cloud_calls.add_task(connection, queue, adding, NOW, creates_queues=makes)


def _lease(connection: Connection, now: float) -> list[str]:
    asked = Asked(1, LEASE_SECONDS, None, of_oldest=False, full=False)
    return [stored.task.name for stored in cloud_calls.lease_tasks(connection, PULLED, asked, now)]


def _numbered(member: Member) -> int:
    """Return a number that is another one for each node."""
    return 100 + member.owner.epoch


def _sent(member: Member) -> Sending:
    """Return the attempt that a node has out, as it has it in memory."""
    queue, number = queue_from(str(PUSHED), {}), OUT[member.owner.node]
    task = replace(
        task_from(_name(PUSHED, number), queue, HTTP, NOW),
        dispatch_count=1,
        first_attempt=Attempt(dispatch_time=NOW),
    )
    stored = cloud_tasks.StoredTask(
        id=number,
        key=PUSHED.key,
        task=task,
        stage=Stage.DISPATCHED,
        execution_count=0,
        lost_count=0,
        previous_response=None,
        retry_reason="",
        is_named=True,
    )
    return Sending(stored=stored, queue=queue, dispatch_time=NOW)


def _makes_a_queue(_: Member, connection: Connection) -> None:
    cloud_calls.update_queue(connection, NEW, {}, [], NOW)


def _changes_a_queue(member: Member, connection: Connection) -> None:
    fields = {"rate_limits": {"max_concurrent_dispatches": member.owner.epoch}}
    cloud_calls.update_queue(connection, PUSHED, fields, ["rate_limits"], NOW)


def _changes_its_retries(member: Member, connection: Connection) -> None:
    fields = {"retry_config": {"max_attempts": member.owner.epoch}}
    cloud_calls.update_queue(connection, PUSHED, fields, ["retry_config"], NOW)


def _adds_a_task(member: Member, connection: Connection) -> None:
    _add(connection, PUSHED, _numbered(member), "same")


def _adds_with_its_queue(member: Member, connection: Connection) -> None:
    _add(connection, NEW, _numbered(member), makes=True)


def _adds_in_a_batch(member: Member, connection: Connection) -> bytes:
    fields = {"name": str(TaskName(PUSHED, "of-the-batch")), **HTTP}
    adding = Adding(number=CloudTaskId(_numbered(member)), fields=fields, made_up_id="1")
    add = partial(cloud_calls.add_tasks, name=PUSHED, all_of_them=[adding], now=NOW, creates_queues=False)
    told, _ = cloud_calls.once(connection, OPERATION, NOW, add, lambda outcomes: repr(len(outcomes)).encode())
    return told


def _purges(_: Member, connection: Connection) -> int:
    return cloud_tasks.purge_some(connection, queue_from(str(PUSHED), {}), PUSHED.key, 10**6, NOW)


def _deletes_a_queue(_: Member, connection: Connection) -> None:
    cloud_queues.remove(connection, PUSHED, leaves=None, held_until=HELD_UNTIL)


def _deletes_a_task(_: Member, connection: Connection) -> None:
    cloud_calls.remove_task(connection, _name(PUSHED, DUE), NOW)


def _begins(member: Member, connection: Connection) -> list[str]:
    begun = cloud_pushes.begin(connection, {PUSHED.key: [DUE]}, member.owner.node, LATER)
    return [sending.stored.task.name for sending in begun]


def _forces(member: Member, connection: Connection) -> int:
    return cloud_pushes.force(connection, _name(PUSHED, DUE), member.owner.node, LATER).number


def _ends(member: Member, connection: Connection, *, status: int) -> list[str]:
    ending = Ending(_sent(member), Ended(dispatch_time=NOW, end_time=LATER, status=status))
    settled = cloud_endings.end(connection, [ending], keeps_attempts=True)
    return [after.verdict.name if after is not None else "gone" for after in settled]


def _takes_back(_: Member, connection: Connection) -> int:
    return cloud_pushes.take_back(connection, None, LATER)


def _leases(_: Member, connection: Connection) -> list[str]:
    return _lease(connection, LATER)


def _acknowledges(_: Member, connection: Connection) -> None:
    cloud_calls.acknowledge_task(connection, _name(PULLED, LEASED), NOW + LEASE_SECONDS, LATER)


def _renews(_: Member, connection: Connection) -> None:
    name, end = _name(PULLED, LEASED), NOW + LEASE_SECONDS
    cloud_calls.move_lease(connection, name, end, LEASE_SECONDS, LATER, full=False)


def _finds_nothing(_: Member, __: Connection) -> list[str]:
    """Do as a call that passes over what another one has locked."""
    return []


def _sweeps(_: Member, connection: Connection) -> int:
    return cloud_tasks.sweep_some(connection, LATER, NOW - 1000.0)


Function = Callable[[Member, Connection], Any]


async def _carry_out(member: Member, *, function: Function) -> Any:
    """Carry out a call; what it is refused with is its result, and nothing of it is written."""
    try:
        return await member.call(partial(function, member))
    except CloudTasksError as error:
        return str(error)


async def _pauses(member: Member) -> Any:
    """Pause or resume a queue as the service does: with the limits that it read, and a look at it afterwards."""
    try:
        limits = cloud_queues.limits_of(PUSHED.key, (await member.unguarded(_get)).rate_limits)
        pause = partial(queues.pause, limits=limits, paused=member.owner.epoch > 1, is_stored=True)
        refused = await member.call(pause)
        if refused is None:
            await member.unguarded(_get)
    except CloudTasksError as error:
        return str(error)
    return refused


def _get(connection: Connection) -> Queue:
    return cloud_queues.get(connection, PUSHED)


def _kind(name: str, function: Function, *lazy: Function) -> Kind:
    acts = [partial(_carry_out, function=each) for each in (function, *lazy)]
    return Kind(name, acts[0], tuple(acts[1:]))


CLOUD_KINDS: Final = (
    _kind("makes a cloud queue", _makes_a_queue),
    _kind("changes a cloud queue", _changes_a_queue),
    _kind("changes the retries of a cloud queue", _changes_its_retries),
    _kind("adds a cloud task", _adds_a_task),
    _kind("adds a cloud task with its queue", _adds_with_its_queue),
    _kind("adds cloud tasks in a batch", _adds_in_a_batch),
    Kind("pauses or resumes a cloud queue", _pauses),
    _kind("purges a cloud queue", _purges),
    _kind("deletes a cloud queue", _deletes_a_queue),
    _kind("deletes a cloud task", _deletes_a_task),
    _kind("begins an attempt", _begins, _finds_nothing),
    _kind("runs a cloud task", _forces),
    _kind("ends an attempt well", partial(_ends, status=200)),
    _kind("ends an attempt badly", partial(_ends, status=503)),
    _kind("takes attempts back", _takes_back),
    _kind("leases a cloud task", _leases, _finds_nothing),
    _kind("acknowledges a cloud task", _acknowledges),
    _kind("renews a lease", _renews),
    _kind("sweeps", _sweeps),
)
"""All that the queue service writes."""
