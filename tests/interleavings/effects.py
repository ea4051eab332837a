"""What a statement does to the tables: which two statements may change places without anybody noticing.

It is told from the text, so that it is known before the statement is carried out. What is not understood, or might do
anything else than read and write rows, is taken to do everything. At READ COMMITTED, two statements of different
transactions that go one right after the other may change places if

- what one of them writes or locks, the other one neither writes nor locks; only shared locks go together. Reading is
  no matter: what is not committed is not seen, and reading waits for nobody;
- neither commits what the other one reads, writes or locks, as the end of a transaction does with all that it wrote,
  and a statement outside a transaction with what it writes itself;
- neither frees what the other one writes or locks, as the end of a transaction does with all that it wrote or locked,
  and so does each statement that may fail, for by its failing the server gives up the transaction at once.
"""

import re
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

from hopline_engine.store.metadata import METADATA
from hopline_engine.store.tables import node

Rows = tuple[str, Any]
"""A table, or a column of it, with the key of the row if it is only one, or ``None``."""
Touched = frozenset[Rows]

_NOTHING: Final[Touched] = frozenset()
_TABLES: Final = METADATA.tables

_READS_OR_WRITES: Final = frozenset({"SELECT", "WITH", "INSERT", "UPDATE", "DELETE"})
_ENDS: Final = frozenset({"COMMIT", "END", "ROLLBACK", "ABORT"})
_MARKS: Final = frozenset({"SAVEPOINT", "RELEASE"})
_FUNCTIONS: Final = frozenset(
    {"cardinality", "cast", "clock_timestamp", "coalesce", "convert_from", "count", "exists", "extract", "greatest"}
    | {"least", "length", "max", "min", "round", "set_config", "sum", "unnest"}
)
"""Those that do nothing but return a value, or set something for their own transaction."""
_SYNTAX: Final = frozenset(
    {"all", "and", "any", "as", "by", "case", "conflict", "distinct", "else", "except", "filter", "from", "having"}
    | {"in", "into", "materialized", "not", "on", "or", "over", "returning", "select", "then", "union", "using"}
    | {"values", "when", "where"}
)
_CALLED: Final = re.compile(r"(?<![.\w])(?<!\bAS )(?<!\bINTO )(\w+) ?\(", re.IGNORECASE)
_NAMED: Final = re.compile(r"\b(?:FROM|JOIN|INTO|UPDATE|USING|ONLY|TABLE) (\w+)|\b(\w+)\.\w", re.IGNORECASE)
_INSERTED: Final = re.compile(r"\bINSERT INTO (\w+)", re.IGNORECASE)
_DELETED: Final = re.compile(r"\bDELETE FROM (\w+)", re.IGNORECASE)
_UPDATED: Final = re.compile(r"\bUPDATE (\w+) SET (.*?)(?= WHERE | RETURNING |$)", re.IGNORECASE)
_ASSIGNED: Final = re.compile(r"\b(\w+) ?=")
_LOCKED: Final = re.compile(r"\bFOR (?:NO KEY )?UPDATE\b(?: OF ([\w, ]+?))?(?= NOWAIT| SKIP|\)|$)", re.IGNORECASE)
_SHARED: Final = re.compile(r"\bFOR (?:KEY )?SHARE\b(?: OF ([\w, ]+?))?(?= NOWAIT| SKIP|\)|$)", re.IGNORECASE)
_SUBQUERY: Final = re.compile(r"\b(?:IN|EXISTS) \((?:[^()]|\([^()]*\))*\)", re.IGNORECASE)
"""In a condition, so that its rows are not locked with the others."""
_KEYS: Final = {"node": "id", "queue": "name", "cloud_queue": "key"}
"""Of tables of which two sides often have to do with one row each. Nothing else in them has to be unique."""
_REFERS: Final = re.compile(r"UPDATE \w+ SET \w+=\$(\d+)[\w:]* WHERE ")
"""To one row, if to any."""
_JOINED: Final = "JOIN queue ON queue.name = cloud_queue.key WHERE cloud_queue.key"
_COUNTER: Final = "committed"
"""The column of ``node`` in which each transaction of a node counts, and hardly any other statement reads."""
_COUNTED: Final = f"{node.name}.{_COUNTER}"
_ALL: Final[Touched] = frozenset((name, None) for name in (*_TABLES, _COUNTED))


class Effect(NamedTuple):
    """What a statement does where it stands in its transaction."""

    reads: Touched = _NOTHING
    shares: Touched = _NOTHING
    """Locks together with others."""
    locks: Touched = _NOTHING
    """Locks alone; of what it writes as well."""
    writes: Touched = _NOTHING
    commits: Touched = _NOTHING
    frees: Touched = _NOTHING

    def beside(self, other: "Effect") -> "Effect":
        """Return what both do, but for what they commit and free."""
        return Effect(*(mine | its for mine, its in zip(self[:4], other[:4], strict=True)))


_EVERYTHING: Final = Effect(_ALL, _ALL, _ALL, _ALL, _ALL, _ALL)


class _Understood(NamedTuple):
    """A statement's text."""

    touches: Effect
    rows: dict[str, int]
    """Numbers of the parameters that name the only rows of tables that are touched."""
    may_fail: bool


def table_of(rows: Rows) -> str:
    """Return the table of some rows, or of a column of them."""
    return rows[0].partition(".")[0]


def effect_of(statement: str, arguments: Sequence[Any], held: Effect | None) -> Effect:
    """Return what a statement does.

    Args:
        statement: its SQL.
        arguments: what it is given for its parameters.
        held: what its transaction has done before, or ``None`` if it is a transaction of its own.
    """
    text = " ".join(statement.replace('"', "").split()).rstrip("; ")
    before = held or Effect()
    if text.split(" ")[0].upper() in _ENDS:
        return Effect(commits=before.writes, frees=before.locks | before.shares)
    touches, numbers, may_fail = _understood(text)
    keys = {table: arguments[number - 1] for table, number in numbers.items() if number <= len(arguments)}
    touches = Effect(*(frozenset((name, keys.get(table_of((name, None)))) for name, _ in rows) for rows in touches))
    if held is None:
        return touches._replace(commits=touches.writes)
    return touches._replace(frees=touches.frees | before.locks | before.shares) if may_fail else touches


def are_independent(one: Effect, other: Effect) -> bool:
    """Return whether two statements may change places."""
    return _passes(one, other) and _passes(other, one)


def _passes(one: Effect, other: Effect) -> bool:
    """Return whether nothing that *one* does hinders *other*, or is seen by it."""
    held = other.locks | other.shares
    return not (_meet(one.locks | one.frees, held) or _meet(one.commits, held | other.reads))


def _meet(some: Touched, others: Touched) -> bool:
    return any(
        table == other and (row is None or its is None or row == its) for table, row in some for other, its in others
    )


@cache
def _understood(text: str) -> _Understood:
    first = text.split(" ")[0].upper()
    if first in _MARKS:
        return _Understood(Effect(), {}, may_fail=False)
    called = {name.lower() for name in _CALLED.findall(text)} - _SYNTAX
    written, referred = _written(text)
    if first not in _READS_OR_WRITES or ";" in text or not called <= _FUNCTIONS or not written <= _TABLES.keys():
        return _Understood(_EVERYTHING, {}, may_fail=True)
    read, beside = _named(text), _named(_SUBQUERY.sub("", text))
    locked = _locked(_LOCKED, text, beside) | written
    shared = _locked(_SHARED, text, beside) | referred
    may_fail = bool(locked or shared)
    if _COUNTER in text or "*" in text.replace("count(*)", ""):
        read |= {_COUNTED} if node.name in read else set()
    if node.name in written:
        written = (written - {node.name} if _only_counts(text) else written) | {_COUNTED}
    touches = Effect(*(frozenset((name, None) for name in names) for names in (read, shared, locked, written)))
    rows = _rows(text, read - referred)
    if (found := _REFERS.match(text)) and referred.isdisjoint(read):
        rows.update(dict.fromkeys(referred, int(found[1])))
    return _Understood(touches, rows, may_fail)


def _named(text: str) -> set[str]:
    return {name for names in _NAMED.findall(text) for name in names if name in _TABLES}


def _written(text: str) -> tuple[set[str], set[str]]:
    """Return the tables that a statement writes, and those of which it locks rows because what it writes refers to."""
    inserted = _INSERTED.findall(text)
    changed = [(name, _columns(name)) for name in inserted]
    changed += [(name, set(_ASSIGNED.findall(assigned))) for name, assigned in _UPDATED.findall(text)]
    referred = {other for name, columns in changed for other in _referred(name, columns)}
    removed = [name for name, columns in changed[len(inserted) :] if columns & _key(name)]
    removed += _DELETED.findall(text) + inserted * ("DO UPDATE" in text)
    for name in removed:  # grows meanwhile
        removed += [other for other in _referring(name) if other not in removed]
    return {name for name, _ in changed}.union(removed), referred


def _only_counts(text: str) -> bool:
    """Return whether a statement changes nothing of ``node`` but the counter."""
    changes = [set(_ASSIGNED.findall(assigned)) for name, assigned in _UPDATED.findall(text) if name == node.name]
    return changes == [{_COUNTER}] and not {node.name} & {*_INSERTED.findall(text), *_DELETED.findall(text)}


def _rows(text: str, tables: Collection[str]) -> dict[str, int]:
    """Return the numbers of the parameters that name the only rows of tables that a statement has to do with."""
    found: dict[str, int] = {}
    for table, key in _KEYS.items():
        if table in tables and len(re.findall(rf"\b(?:FROM|JOIN|INTO|UPDATE|USING) {table}\b", text)) == 1:
            where = re.search(rf"\bWHERE {table}\.{key} = \$(\d+)\b", text)
            added = re.match(rf"INSERT INTO {table} \({key}, [^()]*\) VALUES \(\$(\d+)\b[^()]*\)(?! ?,)", text)
            moves = any(name == table and key in _ASSIGNED.findall(set_to) for name, set_to in _UPDATED.findall(text))
            if where and not moves and " OR " not in text[where.end() :].partition(" RETURNING ")[0]:
                found[table] = int(where[1])
            elif added:
                found[table] = int(added[1])
    if "cloud_queue" in found and _JOINED in text:
        found["queue"] = found["cloud_queue"]
    return found


def _columns(name: str) -> set[str]:
    return set(_TABLES[name].columns.keys()) if name in _TABLES else set()


def _key(name: str) -> set[str]:
    return set(_TABLES[name].primary_key.columns.keys()) if name in _TABLES else set()


def _referred(name: str, columns: Collection[str]) -> set[str]:
    """Return the tables of which rows are locked because some columns refer to them."""
    keys = _TABLES[name].foreign_keys if name in _TABLES else ()
    return {key.column.table.name for key in keys if key.parent.name in columns}


def _referring(name: str) -> set[str]:
    """Return the tables that are looked at, and mostly written, when rows go to which they refer."""
    return {other for other in _TABLES if name in _referred(other, _columns(other))}


def _locked(kind: "re.Pattern[str]", text: str, named: set[str]) -> set[str]:
    found = kind.findall(text)
    return {name for of in found for name in (of.split(", ") if of else named)}
