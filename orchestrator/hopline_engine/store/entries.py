"""What waits to be committed: decisions and calls, what becomes of them, and how much room they take."""

from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from hopline_engine.core.changes import Changes
from hopline_engine.store.errors import ChangesRefusedError

GROUP_ENTRIES: Final = 512
"""Most entries of one transaction; more would make the first of them wait for the last."""

GROUP_BYTES: Final = 16 * 2**20
"""A transaction takes no further entry once those it has bring so many bytes."""

ROW_BYTES: Final = 100
"""What a row counts besides the values of users in it."""


class Outcome(NamedTuple):
    """What became of one entry of a group."""

    value: object = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """Changes to be written, and who waits for them."""

    changes: Changes
    done: Callable[[BaseException | None], None]

    def settle(self, outcome: Outcome) -> None:
        """Tell whoever waits."""
        self.done(outcome.error)


@dataclass(frozen=True, slots=True)
class Call:
    """A function to be run inside the transaction, and who waits for its result."""

    function: Callable[[Connection], object]
    future: "Future[Any]"

    def settle(self, outcome: Outcome) -> None:
        """Tell whoever waits, unless they gave up."""
        if self.future.done():
            return
        if outcome.error is not None:
            self.future.set_exception(outcome.error)
        else:
            self.future.set_result(outcome.value)


Entry = Decided | Call


def refused(error: Exception) -> Outcome:
    """Return what becomes of changes that the database does not take, in our words."""
    if isinstance(error, ChangesRefusedError):
        return Outcome(error=error)
    said = ChangesRefusedError(str(error))
    said.__cause__ = error
    return Outcome(error=said)


def settle(loop: AbstractEventLoop, entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> None:
    """Tell the members of a group what became of them, in the order in which they came."""
    for entry, outcome in zip(entries, outcomes, strict=True):
        try:
            entry.settle(outcome)
        except Exception as error:  # noqa: BLE001 - one listener's failure must not keep the others from hearing
            loop.call_exception_handler({"message": "after a commit", "exception": error})


def size_of(changes: Changes) -> int:
    """Return about how many bytes the changes bring."""
    tasks = len(changes.tasks_added) + len(changes.tasks_moved) + len(changes.tasks_removed)
    size = ROW_BYTES * (len(changes.steps_ended) + len(changes.attempts_ended) + tasks)
    for step in changes.steps_ended:
        if step.result is not None:
            size += len(step.result)
    for attempt in changes.attempts_ended:
        if attempt.logs is not None:
            size += len(attempt.logs)
    for added in changes.runs_added:
        size += len(added.input)
    for event in changes.events_added:
        size += ROW_BYTES + len(event.payload)
    for definition in changes.definitions_added:
        size += len(definition.body)
    for ended in changes.runs_ended:
        if ended.result is not None:
            size += len(ended.result)
    return size
