"""Which of the service's waiting tasks are in memory: of each queue those that are to be sent first, and no more.

The database holds any number of tasks. A window holds the next few hundred of one queue; what lies behind its
*horizon* is read when the window has half run empty. As long as a window is whole, that is, holds all there are, new
tasks go straight into it, and nothing is read at all.
"""

from dataclasses import dataclass, field
from itertools import count
from typing import Final, NamedTuple

from hopline_engine.core.cloud.model import CloudTaskId
from hopline_engine.core.model import TaskId
from hopline_engine.core.plan import HTTP_ROUTE, Route
from hopline_engine.store.cloud_pushes import Due

WINDOW: Final = 1000
"""Tasks of one queue that are held, about; for a moment there may be twice as many."""


_TICKETS: Final = count(1)


class Place(NamedTuple):
    """Where a task waits, as the admission asks for it."""

    queue: str
    route: Route = HTTP_ROUTE
    batch: int = 1
    order: None = None
    """First in, first out."""


@dataclass(slots=True, eq=False)
class PushTask:
    """A task that waits to be sent: its number and its time; what is sent is read when its turn has come."""

    number: CloudTaskId
    node: Place
    schedule_time: float
    id: TaskId = field(default_factory=lambda: TaskId(-next(_TICKETS)))
    """What the admission knows it by: negative, so that it is never that of a step's task, and new each time that the
    task is held, so that what became of it before does not matter."""

    @property
    def key(self) -> None:
        """What it is about: nothing in particular."""

    @property
    def words(self) -> str:
        """What people call it."""
        return f"task {self.number}"

    @property
    def priority(self) -> int:
        """How many turns its level has: that of all who name none."""
        return 0

    @property
    def group(self) -> None:
        """What it may be sent together with: nothing."""


@dataclass(slots=True)
class Window:
    """The tasks of one queue that are held."""

    key: str
    held: dict[CloudTaskId, PushTask] = field(default_factory=dict)
    out: set[CloudTaskId] = field(default_factory=set)
    """Tasks that are being sent: what is read of them was written before."""
    is_whole: bool = False
    is_loading: bool = False
    horizon: float = float("-inf")
    """Unless whole, tasks after this time are not held, but for those that come while the store is read."""

    def must_load(self) -> bool:
        """Whether more has to be read."""
        return not (self.is_whole or self.is_loading) and len(self.held) <= WINDOW // 2

    def let_go(self, task: PushTask) -> None:
        """Hold a task no more, which is being sent."""
        if self.held.get(task.number) is task:
            del self.held[task.number]
        self.out.add(task.number)

    def take_in(self, number: CloudTaskId, schedule_time: float) -> PushTask | None:
        """Hold a task that is durable and waits, if it belongs here now; return it then."""
        if not self._belongs(schedule_time):
            return None
        task = self.held[number] = PushTask(number, Place(self.key), schedule_time)
        return task

    def _belongs(self, schedule_time: float) -> bool:
        if self.is_loading:  # what is read now may have been written before it
            return True
        if self.is_whole and len(self.held) >= WINDOW:
            self.is_whole = False
            self.horizon = max(task.schedule_time for task in self.held.values())
        return self.is_whole or (schedule_time <= self.horizon and len(self.held) < 2 * WINDOW)

    def make_room(self, schedule_time: float) -> list[PushTask]:
        """Let go of the later half, if a task at *schedule_time* should come before it and there is no room; return it.

        Without that, tasks that wait for a far time would keep out those that are due.
        """
        if len(self.held) < 2 * WINDOW or schedule_time > self.horizon or self.is_loading:
            return []
        ordered = sorted(self.held.values(), key=lambda task: task.schedule_time)
        self.is_whole = False
        self.horizon = ordered[WINDOW - 1].schedule_time
        for task in ordered[WINDOW:]:
            del self.held[task.number]
        return ordered[WINDOW:]

    def trim(self) -> list[PushTask]:
        """Let go of what lies behind the horizon, once the store was read; return it.

        So a window that is not whole and has much to wait for reaches beyond now: what is due then belongs into it.
        """
        if self.is_whole or self.is_loading:
            return []
        later = [task for task in self.held.values() if task.schedule_time > self.horizon]
        for task in later:
            del self.held[task.number]
        return later

    def has_much_due(self, now: float) -> bool:
        """Whether enough is held for now, so that it does not matter what else is due."""
        half = WINDOW // 2
        return len(self.held) >= half and sum(task.schedule_time <= now for task in self.held.values()) >= half

    def lacks(self, number: CloudTaskId) -> bool:
        """Whether a task is neither held nor being sent."""
        return number not in self.held and number not in self.out

    def load(self, rows: list[Due], most: int) -> list[PushTask]:
        """Hold what was read, and return what was not held before; *most* is how many were asked for."""
        self.is_loading = False
        self.is_whole = len(rows) < most
        self.horizon = rows[-1].schedule_time if rows else float("-inf")
        new = [row for row in rows if self.lacks(row.id)]
        added = [PushTask(row.id, Place(self.key), row.schedule_time) for row in new]
        self.held.update({task.number: task for task in added})
        return added
