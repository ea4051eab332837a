"""The queue service: what Cloud Tasks lets people do with queues and tasks, whatever wire they ask over.

Every call is one transaction, or a few small ones; memory (limits in the admission, windows of the pusher) follows
what is durable. Listings, filters and views are in ``listing``, calls on many tasks at once in ``batches``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol

from hopline_engine.clock import Clock, token
from hopline_engine.core.cloud import queues as queue_rules
from hopline_engine.core.cloud.errors import CloudTasksError, Code, invalid, queue_missing
from hopline_engine.core.cloud.filters import asks_for_oldest_tag, parse_tag
from hopline_engine.core.cloud.model import Queue, QueueState, QueueStats, Task
from hopline_engine.core.cloud.names import QueueName, TaskName
from hopline_engine.core.cloud.queues import Fields
from hopline_engine.core.rate import Bucket
from hopline_engine.queue import admission
from hopline_engine.queue.numbers import TaskNumbers
from hopline_engine.queue.pusher import Pusher
from hopline_engine.store import cloud_calls, cloud_queues, cloud_tasks
from hopline_engine.store.cloud_calls import Added, Adding
from hopline_engine.store.cloud_leases import Asked
from hopline_engine.store.cloud_tasks import StoredAttempt
from hopline_engine.store.interface import Store
from hopline_engine.store.queues import QueueLimits, StoredQueue

LONGEST_LEASE: Final = 7 * 86_400.0
MOST_LEASED: Final = 1000
LEASES_PER_SECOND: Final = 10.0
MOST_ATTEMPTS: Final = 1000
MOST_COUNTED: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """In what the service may differ from the original."""

    queue_name_hold_seconds: float
    """How long the name of a deleted queue is held; 0 for not at all, 3 to 7 days at the original."""
    creates_queues: bool
    """Whether a task may be created in a queue that nobody made; the queue is made then, with all defaults."""


class Controls(Protocol):
    """The limits and states of queues in memory, which the engine shares with other nodes."""

    def hear(self, limits: QueueLimits, *, paused: bool) -> None:
        """Take over what was stored of a queue."""
        ...

    def forget(self, name: str) -> None:
        """Let go of a queue before it is deleted."""
        ...

    def described(self, name: str) -> QueueLimits | None:
        """Return the limits that workflows describe a queue with, if one does."""
        ...

    async def pause_queue(self, name: str, *, paused: bool, is_stored: bool) -> None:
        """Pause or resume a queue, durably; one that *is_stored* and is deleted meanwhile stays deleted."""
        ...


class QueueService:
    """Queues and tasks. Everything happens on the loop it was opened on."""

    def __init__(
        self,
        *,
        store: Store,
        admission: admission.Admission,
        pusher: Pusher,
        clock: Clock,
        conduct: Conduct,
        controls: Controls,
    ) -> None:
        """Make a service over what the engine has open."""
        self.store = store
        self.clock = clock
        self._admission = admission
        self._pusher = pusher
        self._conduct = conduct
        self._controls = controls
        self._numbers = TaskNumbers(clock)
        self._lease_calls: dict[str, Bucket] = {}
        self._going: set[str] = set()
        """Queues that are being deleted: memory has let go of them, and rows are still there for a moment."""

    # --- queues -----------------------------------------------------------------------------------------------------

    async def create_queue(self, name: QueueName, fields: Fields) -> Queue:
        """Make a queue.

        Raises:
            CloudTasksError: it exists, existed too recently, or cannot be like this.
        """
        made = queue_rules.queue_from(str(name), fields)
        await self.store.execute(partial(cloud_queues.create, name=name, made=made, now=self.clock.now()))
        self._take_in(name, made)
        return made

    async def get_queue(self, name: QueueName) -> Queue:
        """Return a queue.

        Raises:
            CloudTasksError: it is not there.
        """
        return await self.store.read(partial(cloud_queues.get, name=name))

    async def update_queue(self, name: QueueName, fields: Fields, mask: Sequence[str]) -> Queue:
        """Change a queue, or make it if it is not there.

        Raises:
            CloudTasksError: it cannot be like this.
        """
        update = partial(cloud_calls.update_queue, name=name, fields=fields, mask=mask, now=self.clock.now())
        changed = await self.store.execute(update)
        self._take_in(name, changed)
        return changed

    async def delete_queue(self, name: QueueName) -> None:
        """Delete a queue with its tasks.

        Raises:
            CloudTasksError: it is not there.
        """
        described = self._controls.described(name.key)
        leaves = await self.store.read(partial(cloud_queues.outlasting, name=name, described=described))
        self._going.add(name.key)
        try:
            await self._delete(name, leaves)
        finally:
            self._going.discard(name.key)

    async def _delete(self, name: QueueName, leaves: StoredQueue | None) -> None:
        hold = self._conduct.queue_name_hold_seconds
        until = self.clock.now() + hold if hold > 0.0 else None
        self._pusher.drop_queue(name.key)
        if leaves is None:  # first in memory: tokens of a queue whose row is gone could not be stored
            self._controls.forget(name.key)
        clear = partial(cloud_tasks.clear_some, key=name.key)
        while await self.store.execute(clear):  # in parts, so that nobody waits long; the rest goes with the queue
            pass
        limits = leaves.limits if leaves is not None else None
        await self.store.execute(partial(cloud_queues.remove, name=name, leaves=limits, held_until=until))
        if leaves is not None:
            self._controls.hear(leaves.limits, paused=leaves.state == "paused")

    async def purge_queue(self, name: QueueName) -> Queue:
        """Delete the tasks that a queue has now.

        Raises:
            CloudTasksError: it is not there.
        """
        now, newest = self.clock.now(), self._numbers.newest()
        queue = await self.get_queue(name)
        purge = partial(cloud_tasks.purge_some, queue=queue, key=name.key, up_to=newest, now=now)
        while await self.store.execute(purge):
            pass
        await self.store.execute(partial(cloud_queues.set_purge_time, name=name, now=now))
        if not queue.is_pull:
            self._pusher.read_again(name.key)
        return await self.get_queue(name)

    async def set_state(self, name: QueueName, state: QueueState) -> Queue:
        """Pause or resume a queue.

        Raises:
            CloudTasksError: it is not there.
        """
        queue = await self.get_queue(name)
        if name.key in self._going:
            raise queue_missing()
        self._take_in(name, queue)  # another node may just have made it
        await self._controls.pause_queue(name.key, paused=state is not QueueState.RUNNING, is_stored=True)
        return await self.get_queue(name)

    async def stats(self, name: QueueName) -> QueueStats:
        """Return how a queue is doing."""
        found = await self.store.read(partial(cloud_queues.stats, key=name.key, now=self.clock.now()))
        queue = self._admission.queues.get(name.key)
        if queue is None or queue.bucket is None:
            return found
        return replace(found, effective_execution_rate=(queue.brake or queue.bucket).rate)

    async def locations(self, project: str) -> list[str]:
        """Return the locations of a project: those with queues, and ``local``."""
        used = await self.store.read(partial(cloud_queues.locations, project=project))
        return sorted({"local", *used})

    async def policy(self, name: QueueName) -> bytes | None:
        """Return the IAM policy that was set for a queue, as JSON.

        Raises:
            CloudTasksError: it is not there.
        """
        await self.get_queue(name)
        return await self.store.read(partial(cloud_queues.policy, name=name))

    async def set_policy(self, name: QueueName, policy: bytes, etag: bytes | None) -> None:
        """Keep an IAM policy for a queue; it is answered and not enforced.

        Raises:
            CloudTasksError: it is not there, or *etag* is not the mark of the policy that it has.
        """
        await self.store.execute(partial(cloud_queues.set_policy, name=name, given=policy, etag=etag))

    async def exists(self, name: QueueName) -> bool:
        """Return whether a queue is there."""
        return await self.store.read(partial(cloud_queues.find, key=name.key)) is not None

    def _take_in(self, name: QueueName, queue: Queue) -> None:
        """Let memory know a queue, and send its tasks; not of one that is being deleted, which goes with its tasks."""
        if name.key in self._going:
            return
        limits = cloud_queues.limits_of(name.key, queue.rate_limits)
        self._controls.hear(limits, paused=queue.state is not QueueState.RUNNING)
        if not queue.is_pull:
            self._pusher.add_queue(name.key)

    # --- tasks ------------------------------------------------------------------------------------------------------

    async def create_task(self, queue: QueueName, fields: Fields) -> Task:
        """Add a task.

        Raises:
            CloudTasksError: the queue is not there, the name is taken or held, or the task cannot be like this.
        """
        add = partial(
            cloud_calls.add_task,
            name=queue,
            adding=self._adding(fields),
            now=self.clock.now(),
            creates_queues=self._conduct.creates_queues,
        )
        added = await self.store.execute(add)
        self._announce(queue, added)
        return added.task

    async def create_tasks(
        self,
        queue: QueueName,
        all_fields: Sequence[Fields],
        operation: str,
        tell: Callable[[Sequence[Task | CloudTasksError]], bytes],
    ) -> bytes:
        """Add tasks, each by itself, unless *operation* was done before; return what *tell* said of it for a day.

        *tell* is given what became of each task. It is called inside the transaction and must not wait.
        """
        now = self.clock.now()
        add = partial(
            cloud_calls.add_tasks,
            name=queue,
            all_of_them=[self._adding(fields) for fields in all_fields],
            now=now,
            creates_queues=self._conduct.creates_queues,
        )

        def tell_of(outcomes: Sequence[Added | CloudTasksError]) -> bytes:
            return tell([outcome.task if isinstance(outcome, Added) else outcome for outcome in outcomes])

        once = partial(cloud_calls.once, operation=operation, now=now, do=add, tell=tell_of)
        told, outcomes = await self.store.execute(once)
        for outcome in outcomes or ():
            if isinstance(outcome, Added):
                self._announce(queue, outcome)
        return told

    async def buffer_task(self, queue: QueueName, task: str | None, body: bytes, headers: Mapping[str, str]) -> Task:
        """Add a task whose request is the queue's own.

        Raises:
            CloudTasksError: the queue is not there, or says not where its tasks go.
        """
        found = await self.get_queue(queue)
        target = found.config.http_target
        override = target.uri_override if target else None
        if target is None or override is None or override.host is None:
            raise CloudTasksError(
                Code.FAILED_PRECONDITION, "Tasks can only be buffered in a queue whose httpTarget names a host."
            )
        request: dict[str, Any] = {
            "url": f"{(override.scheme or 'https').lower()}://{override.host}",
            "http_method": target.http_method or "POST",
            "headers": dict(headers),
        }
        if request["http_method"] in ("POST", "PUT", "PATCH"):
            request["body"] = body
        fields: dict[str, Any] = {"http_request": request}
        if task is not None:
            fields["name"] = str(TaskName(queue, task))
        return await self.create_task(queue, fields)

    def _adding(self, fields: Fields) -> Adding:
        return Adding(number=self._numbers.next(), fields=fields, made_up_id=_made_up_id())

    def _announce(self, name: QueueName, added: Added) -> None:
        is_new = added.made_queue or not (added.queue.is_pull or name.key in self._pusher.queues)
        if is_new:  # perhaps made by another node
            self._take_in(name, added.queue)
        if not added.queue.is_pull:
            self._pusher.note(name.key, added.number, added.task.schedule_time)

    async def get_task(self, name: TaskName, *, full: bool) -> Task:
        """Return a task.

        Raises:
            CloudTasksError: it is over, or never was.
        """
        get = partial(cloud_tasks.get, name=name, now=self.clock.now(), full=full)
        return (await self.store.read(get)).task

    async def delete_task(self, name: TaskName) -> None:
        """Delete a task; a request that is out goes on, and what it is answered does not count.

        Raises:
            CloudTasksError: it is over, or never was.
        """
        await self.store.execute(partial(cloud_calls.remove_task, name=name, now=self.clock.now()))

    async def delete_tasks(
        self, names: Sequence[TaskName], operation: str, tell: Callable[[Sequence[CloudTasksError | None]], bytes]
    ) -> bytes:
        """Delete tasks, each by itself, unless *operation* was done before; return what *tell* said of it for a day.

        *tell* is given the error of each that could not be deleted. It is called inside the transaction and must not
        wait.
        """
        now = self.clock.now()
        remove = partial(cloud_calls.remove_tasks, names=names, now=now)
        told, _ = await self.store.execute(
            partial(cloud_calls.once, operation=operation, now=now, do=remove, tell=tell)
        )
        return told

    async def run_task(self, name: TaskName, *, full: bool) -> Task:
        """Send a task now; return it as it is while the attempt is out.

        Raises:
            CloudTasksError: it is over, never was, or is one to be leased.
        """
        queue = await self.store.read(partial(cloud_queues.find, key=name.queue.key))
        if queue is not None and queue.is_pull:
            raise invalid("Tasks of a pull queue cannot be run.")
        sending = await self._pusher.run_now(name)
        task = sending.stored.task
        return task if full else task.without_body()

    # --- dead letters and attempts ----------------------------------------------------------------------------------

    async def revive(self, name: TaskName) -> Task:
        """Let a task whose attempts are used up be attempted again, as often as its queue allows.

        Raises:
            CloudTasksError: there is none.
        """
        revived = await self.store.execute(partial(cloud_tasks.revive, name=name, now=self.clock.now()))
        self._pusher.note(revived.key, revived.id, revived.task.schedule_time)
        return revived.task

    async def delete_dead(self, name: TaskName) -> None:
        """Delete a task whose attempts are used up.

        Raises:
            CloudTasksError: there is none.
        """
        await self.store.execute(partial(cloud_tasks.remove_dead, name=name))

    async def attempts(self, name: TaskName) -> list[StoredAttempt]:
        """Return the attempts of a task that are over and still kept, oldest first; also when it is gone itself."""
        return await self.store.read(partial(cloud_tasks.attempts, name=name, limit=MOST_ATTEMPTS))

    async def operation(self, name: str) -> bytes | None:
        """Return what was kept of a batch call."""
        return await self.store.read(partial(cloud_tasks.operation, name=name))

    # --- leases -----------------------------------------------------------------------------------------------------

    async def lease_tasks(
        self, name: QueueName, *, most: int, seconds: float, filter_text: str, full: bool
    ) -> list[Task]:
        """Lease tasks of a pull queue.

        Raises:
            CloudTasksError: the queue is not there, is not a pull queue, is paused, or the call is not right.
        """
        if not 0 < most <= MOST_LEASED:
            raise invalid(f"LeaseTasksRequest.maxTasks must be between 1 and {MOST_LEASED}.")
        _check_lease("LeaseTasksRequest", seconds)
        of_oldest = asks_for_oldest_tag(filter_text)
        self._count_lease(name.key)
        tag = parse_tag(filter_text) if filter_text.strip() and not of_oldest else None
        asked = Asked(most, float(int(seconds)), tag, of_oldest, full)
        lease = partial(cloud_calls.lease_tasks, name=name, asked=asked, now=self.clock.now())
        return [stored.task for stored in await self.store.execute(lease)]

    def _count_lease(self, key: str) -> None:
        now = self.clock.now()
        calls = self._lease_calls.get(key)
        if calls is None:
            if len(self._lease_calls) >= MOST_COUNTED:  # names are the callers'
                self._lease_calls.clear()
            calls = self._lease_calls[key] = Bucket(LEASES_PER_SECOND, LEASES_PER_SECOND, LEASES_PER_SECOND, now)
        if not calls.take(now):
            raise CloudTasksError(
                Code.RESOURCE_EXHAUSTED, "LeaseTasks may be called at most 10 times a second for a queue."
            )

    async def acknowledge_task(self, name: TaskName, lease_end: float) -> None:
        """Delete a leased task: its work is done.

        Raises:
            CloudTasksError: the lease is over, or is another's.
        """
        acknowledge = partial(cloud_calls.acknowledge_task, name=name, lease_end=lease_end, now=self.clock.now())
        await self.store.execute(acknowledge)

    async def renew_lease(self, name: TaskName, lease_end: float, seconds: float, *, full: bool) -> Task:
        """Let a lease end *seconds* from now.

        Raises:
            CloudTasksError: the lease is over, or is another's.
        """
        _check_lease("RenewLeaseRequest", seconds)
        return await self._move(name, lease_end, float(int(seconds)), full=full)

    async def cancel_lease(self, name: TaskName, lease_end: float, *, full: bool) -> Task:
        """Let a lease end now, so that others can lease the task.

        Raises:
            CloudTasksError: the lease is over, or is another's.
        """
        return await self._move(name, lease_end, 0.0, full=full)

    async def _move(self, name: TaskName, lease_end: float, seconds: float, *, full: bool) -> Task:
        move = partial(
            cloud_calls.move_lease, name=name, lease_end=lease_end, seconds=seconds, now=self.clock.now(), full=full
        )
        return (await self.store.execute(move)).task


def _check_lease(message: str, seconds: float) -> None:
    if not 0.0 <= seconds <= LONGEST_LEASE:
        raise invalid(f"{message}.leaseDuration must be between 0 and 1 week.")


def _made_up_id() -> str:
    """Return a task id as the original makes them up: a long number, in no order."""
    return str(10**18 + int(token(8), 16) % (9 * 10**18))
