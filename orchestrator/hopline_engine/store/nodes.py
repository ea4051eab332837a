"""Nodes, and the shards they hold: who may write, who works on which runs, and how that changes hands.

A shard changes hands in two ways only. Its node gives it up, in order with what it commits; or its node's row goes,
because the node left or was fenced by another after it fell silent, and with the row, by the schema, its shards and
its shares of queues become free. Each commit of a node is guarded by its row, so a node without it changes nothing.

Rows are locked in this order: the node's own, those of others (skipping those that are locked: whoever is committing
is alive), shards by number (skipping likewise). Times are the database's.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from hopline_engine import clock
from hopline_engine.core.shards import fair_share
from hopline_engine.store.dialect import insert_missing, now
from hopline_engine.store.errors import OwnershipLostError
from hopline_engine.store.interface import Owner
from hopline_engine.store.tables import meta, node, shard


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredNode:
    """A node as it is."""

    id: str
    url: str | None
    """Where other nodes reach it."""
    epoch: int
    started_at: float
    heartbeat_at: float
    shards: tuple[int, ...]

    @property
    def takes_part(self) -> bool:
        """Whether it works on runs, or is about to; one that cannot be reached only looks at the store."""
        return self.url is not None or bool(self.shards)


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a node learns when it beats."""

    now: float
    """The time of the database."""
    nodes: list[StoredNode]
    """All that are alive, by id, after what this beat changed."""
    fenced: list[str]
    """Those that this beat took for dead."""


def join(connection: Connection, *, node_id: str, url: str | None, alone: bool) -> Owner:
    """Make this process a node, with an epoch of its own. Part of one transaction.

    Alone, it is the only one: former nodes go, all shards are its, and from here on the groups of any other are
    refused. Otherwise it holds no shard before it beats.
    """
    insert_missing(connection, meta, [{"key": "store_id", "value": clock.token()}, {"key": "epoch", "value": "0"}])
    # The row of the epoch is locked first, so that nodes that join at the same time do so one after the other.
    counted = connection.execute(select(meta.c.value).where(meta.c.key == "epoch").with_for_update()).scalar_one()
    epoch = int(counted) + 1
    connection.execute(update(meta).where(meta.c.key == "epoch").values(value=str(epoch)))
    store_id = connection.execute(select(meta.c.value).where(meta.c.key == "store_id")).scalar_one()
    if alone:
        connection.execute(update(shard).values(node=None))
        connection.execute(delete(node))
    connection.execute(insert(node).values(id=node_id, epoch=epoch, url=url, started_at=now(), heartbeat_at=now()))
    if alone:
        connection.execute(update(shard).values(node=node_id))
    return Owner(store_id=store_id, node=node_id, epoch=epoch, alone=alone)


def beat(connection: Connection, *, owner: Owner, silence: float, url: str | None = None, claims: bool = True) -> Heard:
    """Show that a node is alive; fence those that are not, and claim its part of the shards that are nobody's.

    Whether a beat was committed when its answer was lost does not matter: the next one tells the same.

    A node that was itself silent for half of *silence* fences nobody this time: when the database was away, all nodes
    look silent to the one that comes first.

    Args:
        connection: inside a transaction.
        owner: who beats.
        silence: seconds after which a node is taken for dead.
        url: where other nodes reach it, if that is to be changed.
        claims: whether to claim shards.

    Raises:
        OwnershipLostError: it is no node any more.
    """
    mine = (node.c.id == owner.node) & (node.c.epoch == owner.epoch)
    before = connection.execute(
        select(node.c.heartbeat_at, now().label("now")).where(mine).with_for_update()
    ).one_or_none()
    if before is None:
        raise OwnershipLostError(owner.node, owner.epoch)
    values = {"heartbeat_at": now()} | ({} if url is None else {"url": url})
    connection.execute(update(node).where(mine).values(values))
    # What is to be done, if anything, is seen in what has to be read anyway: a beat comes every second or two.
    seen = _look(connection)
    is_silent = any(each.heartbeat_at < before.now - silence for each in seen.nodes)
    may_fence = is_silent and before.now - before.heartbeat_at < silence / 2
    fenced = fence(connection, silence=silence) if may_fence else []
    claimed = claim(connection, owner=owner) if claims and (fenced or seen.has_free_shards) else []
    heard = all_nodes(connection) if fenced or claimed else seen.nodes
    return Heard(now=before.now, nodes=heard, fenced=fenced)


def fence(connection: Connection, *, silence: float) -> list[str]:
    """Remove the nodes that were silent for so many seconds, and return them; what they commit changes nothing."""
    silent = select(node.c.id).where(node.c.heartbeat_at < now() - silence).order_by(node.c.id)
    found = list(connection.execute(silent.with_for_update(skip_locked=True)).scalars())
    if found:
        connection.execute(delete(node).where(node.c.id.in_(found)))
    return found


def claim(connection: Connection, *, owner: Owner) -> list[int]:
    """Take shards that are nobody's, up to the fair share of the nodes that there are, and return them.

    Nodes that cannot be reached take no part: they only look at the store, or start up. None of a node that has gone
    is taken: the reference from the shard to its node refuses it.
    """
    holders = select(shard.c.node).where(shard.c.node.is_not(None))
    takes_part = node.c.url.is_not(None) | node.c.id.in_(holders) | (node.c.id == owner.node)
    nodes = connection.execute(select(func.count()).select_from(node).where(takes_part)).scalar_one()
    held = connection.execute(select(func.count()).select_from(shard).where(shard.c.node == owner.node)).scalar_one()
    free = select(shard.c.id).where(shard.c.node.is_(None)).order_by(shard.c.id).limit(max(0, fair_share(nodes) - held))
    found = list(connection.execute(free.with_for_update(skip_locked=True)).scalars())
    if found:
        connection.execute(update(shard).where(shard.c.id.in_(found)).values(node=owner.node))
    return found


def give_up(connection: Connection, *, owner: Owner, shards: Collection[int]) -> None:
    """Make shards of a node nobody's. All that it decided about their runs was committed before, or never will be."""
    mine = (shard.c.node == owner.node) & shard.c.id.in_(shards)
    connection.execute(select(shard.c.id).where(mine).order_by(shard.c.id).with_for_update()).all()
    connection.execute(update(shard).where(mine).values(node=None))


def leave(connection: Connection, *, owner: Owner) -> None:
    """Remove a node by its own wish: its shards are nobody's, and it commits nothing more."""
    connection.execute(delete(node).where(node.c.id == owner.node))


def all_nodes(connection: Connection) -> list[StoredNode]:
    """Return all nodes by id."""
    return _look(connection).nodes


class _Seen(NamedTuple):
    nodes: list[StoredNode]
    """By id."""
    has_free_shards: bool


def _look(connection: Connection) -> _Seen:
    shards: dict[str | None, list[int]] = defaultdict(list)
    for holder, number in connection.execute(select(shard.c.node, shard.c.id).order_by(shard.c.id)):
        shards[holder].append(number)
    columns = (node.c.id, node.c.url, node.c.epoch, node.c.started_at, node.c.heartbeat_at)
    rows = connection.execute(select(*columns).order_by(node.c.id))
    nodes = [StoredNode(**row, shards=tuple(shards[row["id"]])) for row in rows.mappings()]
    return _Seen(nodes, has_free_shards=bool(shards[None]))
