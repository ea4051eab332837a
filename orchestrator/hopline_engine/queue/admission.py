"""Which due tasks may be sent now: queues, their limits, and the slots of workers.

Holds no clock and does no I/O. A task that may not go waits in the lane of its queue and route, first in first out.
Queues take turns, and so do the lanes of a queue: a step whose worker is away does not hold up the others, and a
long queue not the short ones that need the same workers. Tasks that have keys wait for these first (``keys``);
priorities, and keys in one lane, have their turns as ``turns`` says.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from hopline_engine.core.changes import QueueMoved
from hopline_engine.core.model import TaskId
from hopline_engine.core.order import Order
from hopline_engine.core.plan import HTTP_ROUTE, Route
from hopline_engine.core.rate import Bucket, Ration, default_burst
from hopline_engine.queue import turns
from hopline_engine.queue.keys import Keys
from hopline_engine.queue.turns import Lane, Lanes, Levels, Line, Turns
from hopline_engine.queue.workers import Worker, Workers


class Place(Protocol):
    """Where a task waits."""

    @property
    def queue(self) -> str:
        """Name of its queue."""
        ...

    @property
    def route(self) -> Route:
        """Who can execute it."""
        ...

    @property
    def batch(self) -> int:
        """How many tasks of its group may be sent at once; they take one slot and one token together."""
        ...

    @property
    def order(self) -> Order | None:
        """How it stands among the others of the queue, unless first in, first out."""
        ...


class Queued(Protocol):
    """A task that may wait here: of a step, or of the queue service."""

    @property
    def id(self) -> TaskId:
        """Its number, among those of both kinds."""
        ...

    @property
    def node(self) -> Place:
        """Where it waits."""
        ...

    @property
    def schedule_time(self) -> float:
        """Since when it is due."""
        ...

    @property
    def key(self) -> str | None:
        """What it is about, where few of that are worked on at a time."""
        ...

    @property
    def words(self) -> str:
        """What people call it."""
        ...

    @property
    def priority(self) -> int:
        """How many turns its level has: twice as many as the one below it, from -5 to 5."""
        ...

    @property
    def group(self) -> object:
        """What it may be sent together with, asked only where ``batch`` is more than one."""
        ...


class Hindrance(StrEnum):
    """Why a due task is not sent."""

    QUEUE_PAUSED = "queue_paused"
    NO_WORKER = "no_worker"
    WORKER_BUSY = "worker_busy"
    CONCURRENCY = "concurrency"
    RATE = "rate"
    KEY = "key"


@dataclass(slots=True, eq=False)
class Queue:
    """A queue with its limits, named as in Cloud Tasks, and the due tasks that wait in it."""

    name: str
    max_dispatches_per_second: float | None = None
    max_burst_size: int | None = None
    max_concurrent_dispatches: int | None = None
    is_paused: bool = False
    is_shared: bool = False
    """Whether other nodes send from it too: then its slots and tokens are granted in the store."""
    slots: int | None = None
    """How many tasks may be in flight at this node; ``None`` for no limit."""
    in_flight: int = 0
    ready: int = 0
    unused: float = 0.0
    """Tokens that were granted in the store and come back from tasks that were not sent."""
    bucket: Bucket | None = None
    brake: Bucket | None = None
    """Slows it down beyond its own rate, at this node, while its target asks for less."""
    lanes: dict[Route, Line[Queued] | Turns[Queued]] = field(default_factory=dict)
    """Of tasks of the priority that all have who name none."""
    levels: Levels[Queued] | None = None
    """The lanes of all priorities, while tasks of another one wait."""

    def __post_init__(self) -> None:
        """Have all slots."""
        self.slots = self.max_concurrent_dispatches

    def limit(self, rate: float | None, burst: int | None, concurrent: int | None, now: float) -> None:
        """Set the limits. Tokens that are there by *now* stay, up to the new burst."""
        self.max_dispatches_per_second, self.max_burst_size, self.max_concurrent_dispatches = rate, burst, concurrent
        self.slots = concurrent if concurrent is None or not self.is_shared else min(concurrent, self.slots or 0)
        if rate is None:
            self.bucket = None
            return
        if self.is_shared:
            self.bucket = Ration(rate, float(burst or 1), 0.0, now)
            return
        if self.bucket is not None:
            self.bucket.refill(now)
        size = float(burst) if burst is not None else default_burst(rate)
        tokens = size if self.bucket is None else min(size, self.bucket.tokens)
        self.bucket = Bucket(rate, size, tokens, now)

    def row(self) -> QueueMoved:
        """Return what is stored of the queue as it moves."""
        bucket = self.bucket
        state = "paused" if self.is_paused else "running"
        return QueueMoved(state, bucket.tokens if bucket else 0.0, bucket.at if bucket else 0.0, self.name)

    def refund(self) -> None:
        """Take back the token of a task that was not sent after all."""
        if self.is_shared:
            self.unused += 1.0
        elif self.bucket is not None:
            self.bucket.tokens += 1.0
        if self.brake is not None:
            self.brake.tokens += 1.0

    def refill(self, now: float) -> None:
        """Add the tokens that have flowed in."""
        for bucket in (self.bucket, self.brake):
            if bucket is not None:
                bucket.refill(now)

    def take_token(self, now: float) -> None:
        """Take one token, which must be there."""
        for bucket in (self.bucket, self.brake):
            if bucket is not None:
                bucket.take(now)

    def next_token_at(self) -> float | None:
        """Return when there is a token; ``None`` if there is one.

        Tokens that are granted come when they are asked for, which is of no use while the brake is on.
        """
        brake_at = None if self.brake is None or self.brake.tokens >= 1.0 else self.brake.next_at()
        if self.bucket is None or self.bucket.tokens >= 1.0 or (self.is_shared and brake_at is not None):
            return brake_at
        return max(self.bucket.next_at(), brake_at or 0.0)

    def line_up(self, task: Queued) -> None:
        """Add a task that may be sent as soon as the limits allow it."""
        priority = task.priority
        lanes = self.lanes if priority == 0 else self.lanes_of(priority)
        lane = lanes.get(task.node.route)
        if lane is None or task.key is not None:
            turns.add(lanes, task.node.route, task)
        else:
            lane.append(task)
        self.ready += 1

    def lanes_of(self, priority: int) -> Lanes[Queued]:
        """Return the lanes of a priority."""
        if priority == 0:
            return self.lanes
        if self.levels is None:
            self.levels = Levels(self.lanes)
        return self.levels.of(priority)

    def all_lanes(self) -> Iterator[tuple[Route, Lane[Queued]]]:
        """Yield the lanes of all priorities."""
        for lanes in (self.lanes,) if self.levels is None else self.levels.lanes.values():
            yield from lanes.items()

    def clear(self) -> None:
        """Forget the lanes, in which nothing waits."""
        self.lanes.clear()
        self.levels = None

    @property
    def is_full(self) -> bool:
        """Whether as many tasks are in flight as may be."""
        return self.slots is not None and self.in_flight >= self.slots


class Admission:
    """Decides which task goes next."""

    def __init__(self, workers: Workers, default: Queue) -> None:
        self.workers = workers
        self.keys: Keys[Queued] = Keys()
        self.queues: dict[str, Queue] = {default.name: default}
        self._default = default
        self._backlogged: dict[str, Queue] = {}
        self._waiting: dict[TaskId, Queued] = {}
        """By number; a lane may also hold the task as it was before its run was read again, under the same number."""
        self._reserved: dict[TaskId, tuple[Queue | None, Worker | None]] = {}
        """Without a queue: tasks that are sent together with another one, which has the slots."""

    def queue_of(self, task: Queued) -> Queue:
        """Return the queue of a task; one that was never described is as the default but its own."""
        name = task.node.queue
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = Queue(name, max_concurrent_dispatches=self._default.max_concurrent_dispatches)
        return queue

    def offer(self, task: Queued) -> None:
        """Add a task that is due; one that waits already keeps its place."""
        if self._is_in_line(task):
            return
        if task.key is not None and (self.keys.is_waiting(task) or not self.keys.enter(task)):
            return
        self._line_up(task)

    def withdraw(self, task: Queued) -> None:
        """Forget a task that waits, if it does. Its place in the lane is passed over later."""
        if self._is_in_line(task):
            del self._waiting[task.id]
            self.queue_of(task).ready -= 1
        elif task.key is None or not self.keys.is_waiting(task):
            return
        if task.key is not None:
            self._pass_on_key(task)
            self.keys.give_up([task.id])

    def is_waiting(self, task: Queued) -> bool:
        """Return whether a task is due and not sent."""
        return self._is_in_line(task) or (task.key is not None and self.keys.is_waiting(task))

    def hold_key(self, task: Queued) -> None:
        """Note that an attempt of a task that has a key is under way."""
        self.keys.hold(task)

    def release_key(self, task: Queued) -> None:
        """Let others have the key of a task whose attempt is over."""
        if not self.is_waiting(task):
            self._pass_on_key(task)

    def grant_keys(self, tasks: Iterable[TaskId]) -> None:
        """Line up tasks to which the store has granted their keys."""
        for task in self.keys.grant(tasks):
            self._line_up(task)

    def _pass_on_key(self, task: Queued) -> None:
        for following in self.keys.leave(task):
            self._line_up(following)

    def _line_up(self, task: Queued) -> None:
        queue = self.queue_of(task)
        queue.line_up(task)
        self._waiting[task.id] = task
        self._backlogged[queue.name] = queue

    def _is_in_line(self, task: Queued) -> bool:
        return self._waiting.get(task.id) is task

    def admit(self, now: float) -> list[Queued]:
        """Take out every task that may be sent now, and reserve its place in the queue's limits and at a worker."""
        admitted: list[Queued] = []
        turns = deque(self._backlogged.values())
        while turns:
            queue = turns.popleft()
            task = self._take(queue, now)
            if task is not None:
                admitted.append(task)
                if task.node.batch > 1:
                    admitted += self._companions_of(task, queue)
                turns.append(queue)
                if len(self._backlogged) > 1:  # its turn is over, also when a slot is free next time
                    self._backlogged[queue.name] = self._backlogged.pop(queue.name)
            elif queue.ready == 0:
                queue.clear()
                del self._backlogged[queue.name]
        return admitted

    @property
    def in_flight(self) -> Collection[TaskId]:
        """The tasks that have a place: they were sent and are not answered, or are about to be sent."""
        return self._reserved.keys()

    def release(self, task: TaskId) -> Worker | None:
        """Give back the place of a task whose request is over; return the worker it was reserved at."""
        queue, worker = self._reserved.pop(task)
        if queue is None:
            return worker
        queue.in_flight -= 1
        if worker is not None:
            worker.load.in_flight -= 1
        return worker

    def take_back(self, task: TaskId) -> None:
        """Take back the place of a task that was not sent after all, with its token."""
        queue, _ = self._reserved[task]
        self.release(task)
        if queue is not None:
            queue.refund()

    def worker_of(self, task: Queued) -> Worker | None:
        """Return the worker at which a leased task has its slot; ``None`` for HTTP steps."""
        return self._reserved[task.id][1]

    def is_companion(self, task: Queued) -> bool:
        """Return whether a task is sent together with the one that was admitted before it."""
        return self._reserved[task.id][0] is None

    def moved_queues(self, admitted: list[Queued]) -> list[QueueMoved]:
        """Return the rows of the queues whose tokens the admitted tasks took."""
        queues = dict.fromkeys([self._reserved[task.id][0] for task in admitted])
        return [queue.row() for queue in queues if queue and queue.bucket is not None and not queue.is_shared]

    def shared_short(self) -> Iterator[Queue]:
        """Yield the shared queues with due tasks that could be sent, had the queue a slot or a token."""
        for queue in self._backlogged.values():
            if queue.is_shared and queue.ready and not queue.is_paused and self._lacks_share(queue):
                yield queue

    def _lacks_share(self, queue: Queue) -> bool:
        is_braked = queue.brake is not None and queue.brake.tokens < 1.0
        # Slots are of use in any case: without one, nobody looks whether the brake lets a task go.
        if not queue.is_full and (is_braked or queue.bucket is None or queue.bucket.tokens >= 1.0):
            return False
        return any(lane and self._has_room(route) for route, lane in queue.all_lanes())

    def _has_room(self, route: Route) -> bool:
        return route == HTTP_ROUTE or any(worker.is_free for worker in self.workers.serving(route))

    def next_token_at(self) -> float | None:
        """Return when the next task that only waits for a token may go."""
        limited = [queue for queue in self._backlogged.values() if queue.bucket is not None or queue.brake is not None]
        if not limited:
            return None
        waiting = [queue for queue in limited if not queue.is_paused and not queue.is_full]
        return min((at for queue in waiting if (at := queue.next_token_at()) is not None), default=None)

    def hindrance(self, task: Queued) -> Hindrance | None:
        """Return what keeps a due task from being sent; ``None`` when nothing does."""
        if task.key is not None and self.keys.is_waiting(task):
            return Hindrance.KEY
        queue = self.queue_of(task)
        route = task.node.route
        if queue.is_paused:
            return Hindrance.QUEUE_PAUSED
        if route != HTTP_ROUTE and not self.workers.serving(route):
            return Hindrance.NO_WORKER
        if queue.is_full:
            return Hindrance.CONCURRENCY
        if queue.next_token_at() is not None:
            return Hindrance.RATE
        if not self._has_room(route):
            return Hindrance.WORKER_BUSY
        return None

    def waiting(self, queue: Queue) -> Iterator[Queued]:
        """Yield the due tasks of a queue."""
        for _, lane in queue.all_lanes():
            yield from filter(self._is_in_line, lane)
        if self.keys.waiting_in[queue.name]:
            yield from self.keys.waiting(queue.name)

    def _take(self, queue: Queue, now: float) -> Queued | None:
        if queue.ready == 0 or queue.is_paused or queue.is_full:
            return None
        is_limited = queue.bucket is not None or queue.brake is not None
        if is_limited:
            queue.refill(now)
            if queue.next_token_at() is not None:
                return None
        task = self._take_of(queue, queue.lanes) if queue.levels is None else self._take_by_level(queue, queue.levels)
        if task is not None and is_limited:
            queue.take_token(now)
        return task

    def _take_by_level(self, queue: Queue, levels: Levels[Queued]) -> Queued | None:
        for priority in levels.in_turn():
            task = self._take_of(queue, levels.lanes[priority])
            if task is not None:
                levels.note(priority)
                return task
        return None

    def _take_of(self, queue: Queue, lanes: Lanes[Queued]) -> Queued | None:
        for route in list(lanes):
            task = self._take_from(queue, lanes, route)
            if task is not None:
                return task
        return None

    def _take_from(self, queue: Queue, lanes: Lanes[Queued], route: Route) -> Queued | None:
        lane = lanes[route]
        while lane and not self._is_in_line(lane[0]):
            lane.skip()
        if not lane:
            del lanes[route]
            return None
        worker = None
        if route != HTTP_ROUTE:
            worker = self.workers.reserve(route)
            if worker is None:
                return None
        task = lane.popleft()
        if len(lanes) > 1:  # its turn is over: the other lanes come first now
            lanes[route] = lanes.pop(route)
        del self._waiting[task.id]
        queue.ready -= 1
        queue.in_flight += 1
        self._reserved[task.id] = (queue, worker)
        return task

    def _companions_of(self, task: Queued, queue: Queue) -> list[Queued]:
        """Take out the tasks behind *task* that are sent together with it."""
        found: list[Queued] = []
        lane = queue.lanes_of(task.priority).get(task.node.route)
        while lane and len(found) < task.node.batch - 1:
            if self._is_in_line(lane[0]):
                if lane[0].group is not task.group:
                    break
                found.append(lane[0])
            lane.skip()
        for companion in found:
            del self._waiting[companion.id]
            queue.ready -= 1
            self._reserved[companion.id] = (None, self._reserved[task.id][1])
        return found
