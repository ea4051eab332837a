"""History: how steps and their attempts ended."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, LargeBinary, Row, Select, Text, func, null, select

from hopline_engine.core.model import WHOLE, AttemptEnded, RunId, StepEnded
from hopline_engine.store.tables import attempt, step_run

COLUMNS: Final = [step_run.c[name] for name in StepEnded._fields]

NODES_AT_A_TIME: Final = 10_000
"""Steps that one statement names; databases take 32,766 parameters or fewer."""

_WITHOUT_RESULT: Final = [
    null().cast(LargeBinary).label("result") if name == "result" else step_run.c[name] for name in StepEnded._fields
]

_LEFT_OUT: Final[dict[str, ColumnElement[Any]]] = {"error": null().cast(LargeBinary), "logs": null().cast(Text)}
_WITHOUT_TEXTS: Final = [_LEFT_OUT.get(name, attempt.c[name]).label(name) for name in AttemptEnded._fields]


class ItemCount(NamedTuple):
    """How many elements of a mapped step ended in a state."""

    node: int
    state: str
    items: int


class Overview(NamedTuple):
    """What is stored of the steps of a run, as much as a page about it shows."""

    ended: dict[int, StepEnded]
    """The steps that ended, by position, without results."""
    items: dict[int, dict[str, int]]
    """How many elements of each mapped step that ended are in each state."""
    attempts: dict[int, list[AttemptEnded]]
    """The attempts that are over of each step that is not mapped, without errors and logs."""


def overview(connection: Connection, run_id: RunId, *, single: Sequence[int], mapped: Sequence[int]) -> Overview:
    """Return what a page about a run shows of these steps, by position: the mapped ones and the others."""
    ended = {row.node: row for row in without_results(connection, run_id, [*single, *mapped])}
    items: dict[int, dict[str, int]] = defaultdict(dict)
    for counted in item_counts(connection, run_id, [node for node in mapped if node in ended]):
        items[counted.node][counted.state] = counted.items
    tried: dict[int, list[AttemptEnded]] = defaultdict(list)
    for row in whole_attempts(connection, run_id, single):
        tried[row.node].append(row)
    return Overview(ended, items, tried)


def of_run(connection: Connection, run_id: RunId) -> list[StepEnded]:
    """Return all steps and elements that ended, with their results, by step and element."""
    rows = connection.execute(
        select(*COLUMNS).where(step_run.c.run_id == run_id).order_by(step_run.c.node, step_run.c.item)
    )
    return [StepEnded._make(row) for row in rows]


def get(connection: Connection, run_id: RunId, node: int, item: int) -> StepEnded | None:
    """Return how a step or element ended, or ``None`` if it has not."""
    row = connection.execute(
        select(*COLUMNS).where(step_run.c.run_id == run_id, step_run.c.node == node, step_run.c.item == item)
    ).one_or_none()
    return None if row is None else StepEnded._make(row)


def without_results(connection: Connection, run_id: RunId, nodes: Iterable[int]) -> list[StepEnded]:
    """Return those of the steps that ended, without elements of maps and with ``None`` for every result.

    Takes the positions of the steps, so that each is looked up by key and the elements of large maps are passed over.
    """
    query = select(*_WITHOUT_RESULT).where(step_run.c.run_id == run_id, step_run.c.item == WHOLE)
    rows = _among(connection, query.order_by(step_run.c.node), step_run.c.node, nodes)
    return [StepEnded._make(row) for row in rows]


def items(connection: Connection, run_id: RunId, node: int, *, after: int = WHOLE, limit: int) -> list[StepEnded]:
    """Return up to *limit* elements of a mapped step that ended, from the one after *after*; without results."""
    rows = connection.execute(
        select(*_WITHOUT_RESULT)
        .where(step_run.c.run_id == run_id, step_run.c.node == node, step_run.c.item > after)
        .order_by(step_run.c.item)
        .limit(limit)
    )
    return [StepEnded._make(row) for row in rows]


def item_counts(connection: Connection, run_id: RunId, nodes: Sequence[int]) -> list[ItemCount]:
    """Return how many elements of these mapped steps ended how."""
    query = (
        select(step_run.c.node, step_run.c.state, func.count())
        .where(step_run.c.run_id == run_id, step_run.c.item != WHOLE)
        .group_by(step_run.c.node, step_run.c.state)
        .order_by(step_run.c.node, step_run.c.state)
    )
    return [ItemCount._make(row) for row in _among(connection, query, step_run.c.node, nodes)]


def last_item(connection: Connection, run_id: RunId, node: int) -> int:
    """Return the last element of a mapped step that ended; ``WHOLE`` if none has."""
    query = select(func.max(step_run.c.item)).where(step_run.c.run_id == run_id, step_run.c.node == node)
    found: int | None = connection.execute(query).scalar_one()
    return WHOLE if found is None else found


def ended_counts(connection: Connection, run_ids: Sequence[RunId]) -> dict[RunId, int]:
    """Return how many steps of each of these runs have ended; a run of which none has is left out."""
    rows = connection.execute(
        select(step_run.c.run_id, func.count())
        .where(step_run.c.run_id.in_(run_ids), step_run.c.item == WHOLE, step_run.c.node >= 0)
        .group_by(step_run.c.run_id)
    )
    return {RunId(run_id): counted for run_id, counted in rows}


def whole_attempts(connection: Connection, run_id: RunId, nodes: Sequence[int]) -> list[AttemptEnded]:
    """Return the attempts that are over of steps that are not mapped, by step and number, without errors and logs."""
    query = select(*_WITHOUT_TEXTS).where(attempt.c.run_id == run_id, attempt.c.item == WHOLE)
    rows = _among(connection, query.order_by(attempt.c.node, attempt.c.attempt), attempt.c.node, nodes)
    return [AttemptEnded._make(row) for row in rows]


def attempts(
    connection: Connection,
    run_id: RunId,
    *,
    node: int | None = None,
    item: int | None = None,
    number: int | None = None,
    limit: int,
) -> list[AttemptEnded]:
    """Return up to *limit* attempts that are over, by step, element and number.

    Args:
        connection: to read from.
        run_id: whose attempts.
        node: only of this step.
        item: only of this element, or ``WHOLE``.
        number: only attempts with this number.
        limit: the most that are returned.
    """
    query = select(*(attempt.c[name] for name in AttemptEnded._fields)).where(attempt.c.run_id == run_id)
    for column, wanted in ((attempt.c.node, node), (attempt.c.item, item), (attempt.c.attempt, number)):
        if wanted is not None:
            query = query.where(column == wanted)
    rows = connection.execute(query.order_by(attempt.c.node, attempt.c.item, attempt.c.attempt).limit(limit))
    return [AttemptEnded._make(row) for row in rows]


def _among(
    connection: Connection, query: Select[*tuple[Any, ...]], column: ColumnElement[int], nodes: Iterable[int]
) -> Iterator[Row[Any]]:
    """Yield what a query that is in order of steps finds of *nodes*, however many these are."""
    ordered = sorted(nodes)
    for begin in range(0, len(ordered), NODES_AT_A_TIME):
        yield from connection.execute(query.where(column.in_(ordered[begin : begin + NODES_AT_A_TIME])))
