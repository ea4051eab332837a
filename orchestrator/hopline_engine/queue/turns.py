"""In which order the due tasks of a queue have their turns, where some have keys or priorities.

Tasks that have neither wait in plain lines, first in first out. Holds no clock: how often a priority has its turn is
counted in turns, so that nothing is looked at again as time goes by.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, Literal, Protocol, TypeVar

from hopline_engine.core.order import LEVELS
from hopline_engine.core.plan import Route


class Keyed(Protocol):
    """A task that may have a key."""

    @property
    def key(self) -> str | None:
        """What it is about."""
        ...


_T = TypeVar("_T", bound=Keyed)


class Line(deque[_T]):
    """Tasks without keys."""

    __slots__ = ()

    def skip(self) -> None:
        """Drop the first task, which waits no longer."""
        self.popleft()


class Turns(Generic[_T]):
    """Tasks of which some have keys: the keys take turns, each first in first out. Those without one are as of one."""

    __slots__ = ("_of", "_turns")

    def __init__(self, tasks: Iterable[_T]) -> None:
        self._of: dict[str | None, deque[_T]] = {}
        self._turns: deque[str | None] = deque()
        for task in tasks:
            self.append(task)

    def __bool__(self) -> bool:
        return bool(self._turns)

    def __getitem__(self, first: Literal[0]) -> _T:
        return self._of[self._turns[0]][first]

    def __iter__(self) -> Iterator[_T]:
        for tasks in self._of.values():
            yield from tasks

    def append(self, task: _T) -> None:
        """Add a task behind those of its key."""
        tasks = self._of.get(task.key)
        if tasks is None:
            tasks = self._of[task.key] = deque()
            self._turns.append(task.key)
        tasks.append(task)

    def popleft(self) -> _T:
        """Take out the task whose turn it is; the next turn is another key's."""
        task = self._drop()
        if len(self._turns) > 1 and self._turns[0] == task.key:
            self._turns.rotate(-1)
        return task

    def skip(self) -> None:
        """Drop the first task, which waits no longer: its key keeps its turn."""
        self._drop()

    def _drop(self) -> _T:
        key = self._turns[0]
        tasks = self._of[key]
        task = tasks.popleft()
        if not tasks:
            del self._of[key]
            self._turns.popleft()
        return task


Lane = Line[_T] | Turns[_T]
Lanes = dict[Route, Lane[_T]]
"""Due tasks by who can execute them; lanes have their turns in the order in which they stand."""


def add(lanes: Lanes[_T], route: Route, task: _T) -> None:
    """Add a task to its lane."""
    lane = lanes.get(route)
    if lane is None:
        lane = lanes[route] = Line()
    if task.key is not None and type(lane) is Line:
        lane = lanes[route] = Turns(lane)
    lane.append(task)


class Levels(Generic[_T]):
    """The lanes of a queue by priority. A level has twice as many turns as the one below it, while both can use them.

    Stride scheduling (Waldspurger and Weihl, 1995): each turn moves a level on by a step that is half as long for the
    next higher one, and the level that is furthest behind has the next turn. One that was empty, or could not be
    served, begins where the others are: nothing is saved up. So between two turns of a level that can use them, one
    that is *d* levels higher has at most 2 ** d + 1.
    """

    __slots__ = ("_at", "_now", "lanes")

    def __init__(self, normal: Lanes[_T]) -> None:
        """Begin with the lanes of the tasks of priority 0."""
        self.lanes: dict[int, Lanes[_T]] = {0: normal}
        self._at: dict[int, int] = {0: 0}
        self._now = 0
        """Where the level was that had the last turn."""

    def of(self, priority: int) -> Lanes[_T]:
        """Return the lanes of a priority."""
        lanes = self.lanes.get(priority)
        if lanes is None:
            lanes = self.lanes[priority] = {}
            self._at[priority] = self._now
        return lanes

    def in_turn(self) -> list[int]:
        """Return the priorities of which tasks wait, the one that is to have the next turn first."""
        waiting = [priority for priority, lanes in self.lanes.items() if lanes]
        return sorted(waiting, key=lambda priority: (max(self._at[priority], self._now), -priority))

    def note(self, priority: int) -> None:
        """Note that a priority had its turn."""
        self._now = max(self._at[priority], self._now)
        self._at[priority] = self._now + (1 << (LEVELS - priority))
