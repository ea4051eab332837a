"""Runs as stored: found by what people call them, listed, and read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, exists, false, literal, select, tuple_

from hopline_engine.core.model import Digest, Phase, RunId, RunState
from hopline_engine.errors import AmbiguousRunError
from hopline_engine.store.tables import run

LAST: Final = "@last"
FAILED: Final = "@failed"

_PREFIX: Final = "r_"
_NUL: Final = "\0"
"""No stored text has it, and Postgres cannot even be asked for it."""
_LAST_CHARACTER: Final = "\U0010ffff"
_MOST_CANDIDATES: Final = 5

_parent: Final = run.alias("parent")
_origin: Final = run.alias("origin")
_again: Final = run.alias("again")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A run without its input and result."""

    id: RunId
    public_id: str
    workflow: str
    digest: Digest
    state: RunState
    idempotency_key: str | None
    parent_id: RunId | None
    parent_public_id: str | None
    parent_node: int | None
    parent_item: int | None
    retry_of: RunId | None
    retry_of_public_id: str | None
    created_at: float
    ended_at: float | None
    fork_of: RunId | None
    priority: int
    paused_at: float | None
    ending: str | None
    error: bytes | None
    """JSON of the failure that decided it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord(RunSummary):
    """A run."""

    input: bytes
    result: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFilter:
    """Which runs to list. Runs of sub-workflows are listed only as children of their parent."""

    state: RunState | Phase | None = None
    workflow: str | None = None
    since: float | None = None
    """Created at this time or later, in Unix seconds."""
    parent: RunId | None = None
    retried: bool | None = None
    """Whether another run is a retry of it."""


class SubRun(NamedTuple):
    """A run that a step of another one, or an element of a mapped step, is executed by."""

    public_id: str
    node: int
    item: int
    state: RunState


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPage:
    """A part of a listing, newest first."""

    runs: list[RunSummary]
    next: RunId | None
    """What to give as ``after`` for the next part; ``None`` if there is none."""


def resolve(connection: Connection, ref: str) -> RunId | None:
    """Return the run that *ref* names: a full id, an unambiguous start of one, ``@last`` or ``@failed``.

    ``r_`` may be left out. ``@last`` and ``@failed`` mean runs that somebody started, not runs of sub-workflows.

    Raises:
        AmbiguousRunError: several runs start like this.
    """
    if ref in (LAST, FAILED):
        return _newest(connection, RunState.FAILED if ref == FAILED else None)
    start = ref if ref.startswith(_PREFIX) else _PREFIX + ref
    if start == _PREFIX or _NUL in start:
        return None
    found = connection.execute(
        select(run.c.id, run.c.public_id)
        .where(run.c.public_id >= start, run.c.public_id < start + _LAST_CHARACTER)
        .order_by(run.c.public_id)
        .limit(_MOST_CANDIDATES)
    ).all()
    # In order, so a full id that others start with comes first.
    if len(found) > 1 and found[0].public_id != start:
        raise AmbiguousRunError(ref=ref, candidates=[row.public_id for row in found])
    return RunId(found[0].id) if found else None


def get(connection: Connection, run_id: RunId) -> RunRecord | None:
    """Return a run."""
    return _one(connection, run.c.id == run_id)


def state(connection: Connection, run_id: RunId) -> RunState | None:
    """Return the state of a run, if it exists."""
    found = connection.execute(select(run.c.state).where(run.c.id == run_id)).scalar()
    return None if found is None else RunState(found)


def by_idempotency_key(connection: Connection, key: str) -> RunRecord | None:
    """Return the run that was started with *key*."""
    return _one(connection, run.c.idempotency_key == key)


def page(connection: Connection, wanted: RunFilter, *, limit: int, after: RunId | None = None) -> RunPage:
    """Return up to *limit* runs, newest first, from the one after *after*.

    Runs that are added meanwhile do not shift the following pages.
    """
    query = _filtered(wanted).order_by(run.c.created_at.desc(), run.c.id.desc()).limit(limit + 1)
    if after is not None:
        created_at = connection.execute(select(run.c.created_at).where(run.c.id == after)).scalar()
        query = query.where(tuple_(run.c.created_at, run.c.id) < tuple_(created_at, after))
    found = [RunSummary(**_typed(row)) for row in connection.execute(query).mappings()]
    more = len(found) > limit
    return RunPage(runs=found[:limit], next=found[limit - 1].id if more else None)


def sub_runs(connection: Connection, parent: RunId, nodes: Sequence[int], limit: int) -> list[SubRun]:
    """Return the sub-runs of some steps of a run in the order in which they began, up to *limit* of each step."""
    found = []
    for node in nodes:
        rows = connection.execute(
            select(run.c.public_id, run.c.parent_node, run.c.parent_item, run.c.state)
            .where(run.c.parent_id == parent, run.c.parent_node == node)
            .order_by(run.c.id)
            .limit(limit)
        )
        found += [SubRun(row.public_id, row.parent_node, row.parent_item, RunState(row.state)) for row in rows]
    return found


class EndedSubRun(NamedTuple):
    """A run of a sub-workflow that ended without success, by the step run that it executed."""

    id: RunId
    node: int
    item: int
    input: bytes


def unsuccessful_sub_runs(connection: Connection, parent: RunId) -> list[EndedSubRun]:
    """Return the sub-runs of a run that failed or were cancelled, in the order in which they began."""
    rows = connection.execute(
        select(run.c.id, run.c.parent_node, run.c.parent_item, run.c.input)
        .where(run.c.parent_id == parent, run.c.state.in_([RunState.FAILED.value, RunState.CANCELLED.value]))
        .order_by(run.c.id)
    )
    return [EndedSubRun._make(row) for row in rows]


def _columns(model: type[RunSummary]) -> Sequence[ColumnElement[Any]]:
    others: dict[str, ColumnElement[Any]] = {
        "parent_public_id": _parent.c.public_id.label("parent_public_id"),
        "retry_of_public_id": _origin.c.public_id.label("retry_of_public_id"),
    }
    return [others[name] if name in others else run.c[name] for name in model.__dataclass_fields__]


def _select(model: type[RunSummary]) -> Select[Any]:
    joined = run.outerjoin(_parent, _parent.c.id == run.c.parent_id).outerjoin(_origin, _origin.c.id == run.c.retry_of)
    return select(*_columns(model)).select_from(joined)


def _typed(row: Any) -> dict[str, Any]:
    return {**row, "state": RunState(row["state"])}


def _one(connection: Connection, condition: ColumnElement[bool]) -> RunRecord | None:
    row = connection.execute(_select(RunRecord).where(condition)).mappings().one_or_none()
    return RunRecord(**_typed(row)) if row else None


def _filtered(wanted: RunFilter) -> Select[Any]:
    query = _select(RunSummary).where(run.c.parent_id == wanted.parent)
    if wanted.state is not None:
        query = query.where(*_is_as(wanted.state))
    if wanted.retried is not None:
        again = exists().where(_again.c.retry_of == run.c.id)
        query = query.where(again if wanted.retried else ~again)
    if wanted.workflow is not None:
        query = query.where(false() if _NUL in wanted.workflow else run.c.workflow == wanted.workflow)
    if wanted.since is not None:
        query = query.where(run.c.created_at >= wanted.since)
    return query


def _is_as(state: RunState | Phase) -> Iterator[ColumnElement[bool]]:
    """Yield what is true of runs in a state, or in a part of the running ones."""
    if isinstance(state, RunState) and state is not RunState.RUNNING:
        yield in_state(state)
        return
    yield in_state(RunState.RUNNING)
    ending = {"undoing": RunState.FAILED, "cancelling": RunState.CANCELLED}.get(state)
    if ending is not None:
        yield run.c.ending == ending.value
    elif state == "paused":
        yield run.c.paused_at.is_not(None)
        yield run.c.ending.is_(None)
    else:
        yield run.c.paused_at.is_(None)
        yield run.c.ending.is_(None)


def in_state(state: RunState) -> ColumnElement[bool]:
    """Return what is true of runs in a state."""
    # Written into the statement: SQLite takes a partial index only if it sees the value.
    return run.c.state == literal(state.value, literal_execute=True)


def _newest(connection: Connection, state: RunState | None) -> RunId | None:
    query = select(run.c.id).where(run.c.parent_id.is_(None))
    if state is not None:
        query = query.where(in_state(state))
    found = connection.execute(query.order_by(run.c.created_at.desc(), run.c.id.desc()).limit(1)).scalar()
    return None if found is None else RunId(found)
