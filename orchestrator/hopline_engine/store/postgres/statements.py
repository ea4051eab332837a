"""The statement of a group: one common table expression for each kind of row, over arrays, behind the node's guard.

It is compiled from the same row types as SQLite's statements, once for each combination of kinds. A statement does
not see the rows that it adds itself, and finds a row once: ``rows`` says what is done about that.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Dialect,
    Integer,
    Text,
    Update,
    and_,
    bindparam,
    case,
    column,
    func,
    insert,
    literal_column,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ARRAY, asyncpg
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.selectable import TableValuedAlias

from hopline_engine.store.statements import ROW_TYPES, RowType, target_of
from hopline_engine.store.tables import node

Rows = Sequence[tuple[Any, ...]]
Given = dict[str, Rows]
"""Rows by kind, in the order in which they are written; no kind without rows."""

_DIALECT: Final[Dialect] = asyncpg.dialect()  # type: ignore[no-untyped-call]
_BY_KIND: Final = {row.kind: row for row in ROW_TYPES}
_ZERO: Final[ColumnElement[int]] = literal_column("0", Integer)
_ONE: Final[ColumnElement[int]] = literal_column("1", Integer)
_NUMBER: Final = "number"
_NODE: Final = "node"
_EPOCH: Final = "epoch"

IDLE_SECONDS: Final = 5
"""How long a transaction may wait for its client: one whose client is gone must not keep its locks."""


class Guard(NamedTuple):
    """Which group a node writes; nothing is written unless it is the node's next."""

    number: int
    node: str
    epoch: int


class Statement(NamedTuple):
    """SQL with the names of its parameters in their order."""

    sql: str
    parameters: tuple[str, ...]

    def arguments(self, guard: Guard | None, given: Given) -> list[Any]:
        """Return what the driver is to be given."""
        values: dict[str, Any] = {} if guard is None else guard._asdict()
        for kind, rows in given.items():
            values.update(zip(_names(kind), zip(*rows, strict=True), strict=True))
        return [values[name] for name in self.parameters]


@cache
def group_statement(kinds: tuple[str, ...]) -> Statement:
    """Return the statement that writes a group of these kinds of rows, in a transaction of its own.

    It returns one row: how many nodes it found to be the owner, which is 1, or 0 if nothing was written. It fails with
    a division by zero if a row that is to change is not there.
    """
    guard = _guard().returning(true().label("ours")).cte("guard")
    parts = {kind: _part(_BY_KIND[kind], guard) for kind in kinds}
    found = [_count(part) == _expected(kind) for kind, part in parts.items() if _BY_KIND[kind].counted]
    ours = _count(guard)
    divisor = case((or_(ours == _ZERO, and_(true(), *found)), _ONE), else_=_ZERO)
    return _compiled(select(ours, _ONE.op("/")(divisor)).add_cte(*parts.values()))


@cache
def kind_statement(kind: str) -> Statement:
    """Return the statement that writes rows of one kind, inside a transaction that has been guarded.

    The number of rows that it changed is in its status.
    """
    return _compiled(_write(_BY_KIND[kind], None))


@cache
def guard_statement() -> Statement:
    """Return the statement that begins a transaction of several: it changes one row, or we are not the owner.

    It bounds how long the transaction may be idle.
    """
    bounded: ColumnElement[str] = literal_column(
        f"set_config('idle_in_transaction_session_timeout', '{IDLE_SECONDS}s', true)"
    )
    return _compiled(_guard().returning(bounded))


@cache
def look_statement() -> Statement:
    """Return the statement that finds the number of the node's last group, or no row if it is no node any more."""
    return _compiled(select(node.c.committed).where(_mine()))


def _guard() -> Update:
    number = bindparam(_NUMBER, type_=BigInteger)
    return update(node).where(_mine(), node.c.committed < number).values(committed=number)


def _mine() -> ColumnElement[bool]:
    return and_(node.c.id == bindparam(_NODE, type_=Text), node.c.epoch == bindparam(_EPOCH, type_=BigInteger))


def _part(row: RowType, guard: CTE) -> CTE:
    part: CTE = _write(row, guard).cte(row.kind)
    return part


def _write(row: RowType, guard: CTE | None) -> Any:
    """Return the statement of a kind of rows; as part of a group it does nothing unless the guard found us."""
    target, given = target_of(row), _given(row)
    if row.counted or row.may_lack:
        statement: Any = row.build(target, given.c.__getitem__)
        if guard is None:
            return statement
        return statement.where(guard.c.ours).returning(_ONE)
    source = select(*[given.c[name] for name in row.fields])
    rows = source if guard is None else source.where(guard.c.ours)
    if row.may_exist:
        return postgresql.insert(target).from_select(list(row.fields), rows).on_conflict_do_nothing()
    return insert(target).from_select(list(row.fields), rows)


def _given(row: RowType) -> TableValuedAlias:
    """Return the rows that are given, as a table."""
    arrays = [bindparam(name, type_=_array(row, field)) for name, field in _fields(row.kind)]
    columns = [column(field, row.table.c[field].type) for field in row.fields]
    return func.unnest(*arrays).table_valued(*columns).render_derived()


@cache
def _fields(kind: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"{kind}.{field}", field) for field in _BY_KIND[kind].fields)


@cache
def _names(kind: str) -> tuple[str, ...]:
    return tuple(name for name, _ in _fields(kind))


def _count(part: CTE) -> ColumnElement[int]:
    return select(func.count()).select_from(part).scalar_subquery()


def _expected(kind: str) -> ColumnElement[int]:
    """Return how many rows of a kind are given; their keys stand last."""
    name, field = _fields(kind)[-1]
    return func.cardinality(bindparam(name, type_=_array(_BY_KIND[kind], field)))


def _array(row: RowType, field: str) -> ARRAY[Any]:
    of = row.table.c[field].type
    return ARRAY(Text() if isinstance(of, Text) else of)  # without the column's collation


def _compiled(statement: Any) -> Statement:
    compiled = statement.compile(dialect=_DIALECT)
    assert isinstance(compiled, SQLCompiler)
    return Statement(str(compiled), tuple(compiled.positiontup or ()))
