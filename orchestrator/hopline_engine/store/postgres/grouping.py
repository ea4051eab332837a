"""The rows of a group of decisions, such that one statement writes what SQLite's writes one after the other would.

One statement does not see the rows that it adds, and changes a row at most once. So rows of the same task are merged:
added and then moved is added as moved, of several moves the last counts. What is rarer than that is left to several
statements: a task removed, or a run ended, in the very group that adds or moves it.
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, Final, cast

from hopline_engine.core.changes import Changes, QueueMoved
from hopline_engine.core.model import TaskAdded, TaskMoved, TaskState
from hopline_engine.store.postgres.statements import Given, Rows
from hopline_engine.store.statements import ROW_TYPES

_FIELDS: Final = tuple((row.kind, attrgetter(row.kind)) for row in ROW_TYPES)
_REPEATED: Final = ("tasks_moved", "queues_moved", "runs_moved")
"""Kinds of which a group may have several rows with the same key: the last counts."""
_TASK_STATES: Final = frozenset(map(int, TaskState))
_QUEUE_STATES: Final = frozenset({"running", "paused"})


def gathered(batch: Sequence[Changes]) -> Given:
    """Return the rows of all decisions by kind, in the order in which they are written."""
    given: Given = {}
    for kind, of in _FIELDS:
        rows = list(chain.from_iterable(map(of, batch)))
        if rows:
            given[kind] = rows
    return given


def merged(given: Given) -> Given | None:
    """Return rows of which none touches another, or ``None`` if several statements are needed."""
    added, moved = _firsts(given, "tasks_added"), _lasts(given, "tasks_moved")
    if not _lasts(given, "tasks_removed").isdisjoint(added | moved):
        return None
    changed, ended = _lasts(given, "runs_moved"), _lasts(given, "runs_ended")
    if not (changed | ended).isdisjoint(_firsts(given, "runs_added")) or not changed.isdisjoint(ended):
        return None
    if not _lasts(given, "runs_woken").isdisjoint(_firsts(given, "runs_parked")):
        return None
    result = dict(given)
    for kind in _REPEATED:
        if len(_lasts(given, kind)) < len(given.get(kind, ())):
            result[kind] = list({row[-1]: row for row in given[kind]}.values())
    if not added.isdisjoint(moved):
        if len(added) < len(given["tasks_added"]):
            return None
        _add_as_moved(result)
    return result if _hides_nothing(given, result) else None


def rounds(kind: str, rows: Rows) -> Iterator[Rows]:
    """Yield rows of one kind in parts that have each key once, so that writing them in turn lets the last count."""
    left = list(rows)
    while left:
        part = {row[-1]: row for row in reversed(left)} if kind in _REPEATED else dict(enumerate(left))
        first = list(part.values())
        yield first
        taken = set(map(id, first))
        left = [row for row in left if id(row) not in taken]


def _firsts(given: Given, kind: str) -> set[Any]:
    """Return the keys of rows that are added."""
    return {row[0] for row in given.get(kind, ())}


def _lasts(given: Given, kind: str) -> set[Any]:
    """Return the keys of rows that change others."""
    return {row[-1] for row in given.get(kind, ())}


def _add_as_moved(result: Given) -> None:
    moves: dict[Any, Any] = {row[-1]: row for row in result["tasks_moved"]}
    added: list[Any] = []
    for row in cast("list[TaskAdded]", result["tasks_added"]):
        move = moves.pop(row.id, None)
        added.append(row if move is None else row._replace(**move._asdict()))
    result["tasks_added"] = added
    if moves:
        result["tasks_moved"] = list(moves.values())
    else:
        del result["tasks_moved"]


def _hides_nothing(given: Given, result: Given) -> bool:
    """Return whether the rows that were merged away have states that the database would have taken."""
    if sum(map(len, given.values())) == sum(map(len, result.values())):
        return True
    tasks = chain(given.get("tasks_added", ()), given.get("tasks_moved", ()))
    states = {row.state for row in cast("Iterator[TaskAdded | TaskMoved]", tasks)}
    queues = {row.state for row in cast("Sequence[QueueMoved]", given.get("queues_moved", ()))}
    return states <= _TASK_STATES and queues <= _QUEUE_STATES
