"""How a task stands among the others of its queue: its priority, and what it is about if few of that go at a time.

Few tasks have anything of this. The rest stand first in, first out.
"""

from typing import Final, NamedTuple

from hopline_engine.core.binding import BindingError, Expression, Scope, compile_expression, decoded
from hopline_engine.core.definition import PolicySpec
from hopline_engine.core.model import RunId, TaskId

LONGEST_KEY: Final = 500
"""Characters; databases index it."""

LEVELS: Final = 5
"""Of priorities, above and below the one that all have who name none."""


class Order(NamedTuple):
    """What the tasks of a step have of it."""

    priority: int = 0
    key: Expression | None = None
    key_limit: int = 1
    """How many tasks of the same queue and key are worked on at a time, this one among them."""

    @classmethod
    def of(cls, policy: PolicySpec) -> "Order | None":
        """Return what a policy says; ``None`` when that is nothing."""
        if policy.key is None and policy.priority == 0:
            return None
        key = None if policy.key is None else compile_expression(policy.key)
        return cls(policy.priority, key, policy.key_limit)

    def raised(self, by: int) -> int:
        """Return the priority of a task in a run of a priority."""
        return max(-LEVELS, min(LEVELS, self.priority + by))

    def key_in(self, scope: Scope) -> str | None:
        """Return the key of a task, if its step has one.

        Raises:
            BindingError: what it is made of is not there, or is no key.
        """
        if self.key is None:
            return None
        key = decoded(self.key, scope)
        if isinstance(key, int) and not isinstance(key, bool):
            return str(key)
        if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY or "\0" in key:
            shown = repr(key) if len(repr(key)) <= 100 else f"{repr(key)[:99]}…"
            raise BindingError(f"its key is {shown}; a key is a text of 1 to {LONGEST_KEY} characters")
        return key


RUNS: Final = "$runs"
"""Stands for the queue where the key is a workflow, and its runs have turns; no queue is called that."""


TURNS: Final = 2**62
"""Numbers of turns lie above this, and those of tasks below."""


def turn_of(run: RunId) -> TaskId:
    """Return the number under which a run has its turn: no task's, and of the same shard.

    >>> turn_of(RunId(5)) % 64
    5
    """
    return TaskId(run + TURNS)


class Place(NamedTuple):
    """A key: the same in two queues is two."""

    queue: str
    key: str


class Wish(NamedTuple):
    """A task that waits for a grant of its key."""

    task: TaskId
    queue: str
    key: str
    key_limit: int
    since: float
    words: str
    """What people call the task."""
