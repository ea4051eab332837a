"""Which tasks that have a key may be sent: of each queue and key as few at a time as they say.

A task holds its key from when it is lined up to be sent until its attempt is over, the wait for a callback included.
The others of the key wait outside the lines of the queue, first in first out. Where other nodes send tasks of the same
queue, the store grants the keys and nothing here does.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

from hopline_engine.core.model import TaskId
from hopline_engine.core.order import Order, Place, Wish

ASKED_AT_A_TIME: Final = 100
"""Of one key, tasks for which the store is asked; it grants in the order in which they became due."""


class InQueue(Protocol):
    """Where a task waits, and what it says of its key."""

    @property
    def queue(self) -> str:
        """Name of its queue."""
        ...

    @property
    def order(self) -> Order | None:
        """How many of its key are worked on at a time."""
        ...


class HasKey(Protocol):
    """A task that has a key."""

    @property
    def id(self) -> TaskId:
        """Its number."""
        ...

    @property
    def node(self) -> InQueue:
        """Where it waits."""
        ...

    @property
    def key(self) -> str | None:
        """What it is about."""
        ...

    @property
    def schedule_time(self) -> float:
        """Since when it is due."""
        ...

    @property
    def words(self) -> str:
        """What people call it."""
        ...


_T = TypeVar("_T", bound=HasKey)


@dataclass(slots=True)
class _Key(Generic[_T]):
    holders: dict[TaskId, _T] = field(default_factory=dict)
    waiting: deque[_T] = field(default_factory=deque)


class Keys(Generic[_T]):
    """The keys of one node."""

    def __init__(self) -> None:
        self.is_shared = False
        """Whether keys are granted by the store."""
        self.waiting_in: Counter[str] = Counter()
        """How many tasks of each queue wait for their keys."""
        self.elsewhere: dict[Place, list[str]] = {}
        """What people call the tasks that held keys, at any node, when the store was last asked for them."""
        self.given_up: set[TaskId] = set()
        """Tasks for which the store may have been asked, and which are not to be sent now."""
        self.has_news = False
        """Whether a task has begun to wait for its key, or let go of it, since the store was last asked."""
        self._keys: dict[Place, _Key[_T]] = {}
        self._waiting: dict[TaskId, _T] = {}

    @property
    def are_wanted(self) -> bool:
        """Whether tasks wait for their keys."""
        return bool(self._waiting)

    def enter(self, task: _T) -> bool:
        """Return whether a task holds its key; otherwise it waits for it."""
        key = self._keys.setdefault(_place(task), _Key())
        if task.id in key.holders:
            return True
        self.given_up.discard(task.id)
        self.has_news = True
        self._waiting[task.id] = task
        self.waiting_in[task.node.queue] += 1
        key.waiting.append(task)
        return not self.is_shared and task in self._pass_on(key)

    def hold(self, task: _T) -> None:
        """Note that a task holds its key: its attempt is under way."""
        self._keys.setdefault(_place(task), _Key()).holders[task.id] = task

    def leave(self, task: _T) -> list[_T]:
        """Note that a task neither holds its key nor waits for it; return those that hold it now in its place."""
        place = _place(task)
        key = self._keys.get(place)
        if key is None:
            return []
        if self._waiting.get(task.id) is task:
            self._forget(task)
        else:
            key.holders.pop(task.id, None)
            self.has_news = True
        passed = [] if self.is_shared else self._pass_on(key)
        if not key.holders and next(self._in_line(key), None) is None:
            del self._keys[place]
            self.elsewhere.pop(place, None)
        return passed

    def grant(self, tasks: Iterable[TaskId]) -> list[_T]:
        """Let tasks hold their keys, as the store has granted; return those that waited for it."""
        granted = [task for number in tasks if (task := self._waiting.get(number)) is not None]
        for task in granted:
            self._forget(task)
            self.hold(task)
        return granted

    def wishes(self) -> list[Wish]:
        """Return the tasks that wait for grants of the store, of each key the first ones."""
        found: list[Wish] = []
        for place, key in self._keys.items():
            first = next(self._in_line(key), None)
            most = 0 if first is None else min(ASKED_AT_A_TIME, _limit(first))
            found += [_wish(task, place) for task in islice(self._in_line(key), most)]
        return found

    def give_up(self, tasks: Iterable[TaskId]) -> None:
        """Have the store know that tasks are not to be sent now, but for those that wait again."""
        self.given_up.update(task for task in tasks if task not in self._waiting)
        self.has_news = True

    def is_waiting(self, task: _T) -> bool:
        """Return whether a task waits for its key."""
        return self._waiting.get(task.id) is task

    def waiting(self, queue: str) -> Iterator[_T]:
        """Yield the tasks of a queue that wait for their keys."""
        return (task for task in self._waiting.values() if task.node.queue == queue)

    def holders(self, task: _T) -> list[str]:
        """Return what people call those that hold the key of a task."""
        place = _place(task)
        if self.is_shared:
            return self.elsewhere.get(place, [])
        key = self._keys.get(place)
        return [holder.words for holder in key.holders.values()] if key is not None else []

    def _pass_on(self, key: _Key[_T]) -> list[_T]:
        """Let the first that wait hold the key, as many as may."""
        passed: list[_T] = []
        while (first := next(self._in_line(key), None)) is not None and len(key.holders) < _limit(first):
            self._forget(key.waiting.popleft())
            key.holders[first.id] = first
            passed.append(first)
        return passed

    def _in_line(self, key: _Key[_T]) -> Iterator[_T]:
        """Yield those that wait for a key, in order."""
        while key.waiting and not self.is_waiting(key.waiting[0]):
            key.waiting.popleft()
        return filter(self.is_waiting, key.waiting)

    def _forget(self, task: _T) -> None:
        del self._waiting[task.id]
        self.waiting_in[task.node.queue] -= 1


def _place(task: HasKey) -> Place:
    assert task.key is not None
    return Place(task.node.queue, task.key)


def _limit(task: HasKey) -> int:
    return task.node.order.key_limit if task.node.order is not None else 1


def _wish(task: HasKey, place: Place) -> Wish:
    return Wish(task.id, *place, _limit(task), task.schedule_time, task.words)
