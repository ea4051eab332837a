"""Who owns the store: its id, the epoch that rises with every owner, the node rows."""

from sqlalchemy import Connection, delete, insert, select, update

from hopline_engine import clock
from hopline_engine.store.interface import Owner
from hopline_engine.store.tables import meta, node


def take_over(connection: Connection, *, node_id: str, url: str | None, now: float) -> Owner:
    """Make this process the only owner: from here on the groups of any other are refused.

    Part of one transaction: the next epoch, the removal of former owners and the new node row.
    """
    facts = dict(connection.execute(select(meta.c.key, meta.c.value)).all())
    store_id = facts.get("store_id") or clock.token()
    epoch = int(facts.get("epoch", "0")) + 1
    connection.execute(delete(meta).where(meta.c.key.in_(["store_id", "epoch"])))
    connection.execute(insert(meta), [{"key": "store_id", "value": store_id}, {"key": "epoch", "value": str(epoch)}])
    connection.execute(delete(node))
    connection.execute(insert(node).values(id=node_id, epoch=epoch, url=url, started_at=now, heartbeat_at=now))
    return Owner(store_id=store_id, node=node_id, epoch=epoch)


def beat(connection: Connection, *, node_id: str, now: float) -> None:
    """Note that a node is alive."""
    connection.execute(update(node).where(node.c.id == node_id).values(heartbeat_at=now))
