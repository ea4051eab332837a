"""Versions of workflows, and which of them new runs use."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from hopline_engine.core.model import Digest
from hopline_engine.store.dialect import insert_missing, insert_or_update
from hopline_engine.store.tables import definition, workflow


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDefinition:
    """One version of a workflow."""

    digest: Digest
    name: str
    body: bytes
    """Canonical JSON."""


def register(
    connection: Connection, definitions: Iterable[StoredDefinition], current: Iterable[str], now: float
) -> None:
    """Store versions that are new, and make those of the names in *current* the ones that new runs use.

    Every name in *current* is that of one of *definitions*.
    """
    given = list(definitions)
    insert_missing(
        connection,
        definition,
        [{"digest": each.digest, "name": each.name, "body": each.body, "created_at": now} for each in given],
    )
    digests = {each.name: each.digest for each in given}
    known = dict(connection.execute(select(workflow.c.name, workflow.c.digest)).all())
    insert_or_update(
        connection,
        workflow,
        [
            {"name": name, "digest": digests[name], "updated_at": now}
            for name in current
            if known.get(name) != digests[name]
        ],
    )


def by_digests(connection: Connection, digests: Sequence[Digest]) -> list[StoredDefinition]:
    """Return those versions of workflows that are stored."""
    columns = select(definition.c.digest, definition.c.name, definition.c.body)
    rows = connection.execute(columns.where(definition.c.digest.in_(digests)))
    return [StoredDefinition(digest=Digest(row.digest), name=row.name, body=row.body) for row in rows]


def newest(connection: Connection) -> dict[str, Digest]:
    """Return which version of each workflow new runs use, by name."""
    rows = connection.execute(select(workflow.c.name, workflow.c.digest))
    return {row.name: Digest(row.digest) for row in rows}


def current(connection: Connection) -> list[StoredDefinition]:
    """Return the versions that new runs use, by name."""
    rows = connection.execute(
        select(definition.c.digest, definition.c.name, definition.c.body)
        .join(workflow, workflow.c.digest == definition.c.digest)
        .order_by(workflow.c.name)
    )
    return [StoredDefinition(digest=Digest(row.digest), name=row.name, body=row.body) for row in rows]
