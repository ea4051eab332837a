"""The limits of queues that several nodes share: slots and tokens are granted under the lock of the queue's row.

Only under that lock a node changes its own share, so the slots of all nodes are never more than the queue's limit
(but when the limit has just been lowered), and a token is taken once. Times are the database's. Locks: the rows of the
queues by name, then the node's own shares.
"""

import math
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Row, select, update

from hopline_engine.core.fairness import fair_part
from hopline_engine.core.rate import Bucket, default_burst
from hopline_engine.store.dialect import insert_or_update, now
from hopline_engine.store.interface import Owner
from hopline_engine.store.tables import queue, queue_share

TURN_SECONDS: Final = 1.0
"""How long a node has a slot while there are more nodes than slots; then its next task has to wait."""


class Ask(NamedTuple):
    """What a node wants of a queue."""

    queue: str
    keep: int
    """Slots of those it has that it goes on using. It must not use more from before it asks until it is answered."""
    wanted: int
    """Tasks that are in flight or due."""
    tokens: int
    """How many tasks it would send at once."""
    returned: float
    """Tokens that it was granted and did not use."""


class Grant(NamedTuple):
    """What a node may use of a queue."""

    queue: str
    slots: int
    """As many tasks may be in flight at a time; at least what it asked to keep."""
    part: int
    """As many are the node's as others want; what it has beyond that is to be given back when it becomes free."""
    tokens: int
    """As many tasks may be sent now."""
    tokens_at: float
    """When asking for more tokens is of use."""


def settle(connection: Connection, *, owner: Owner, asks: Iterable[Ask]) -> list[Grant]:
    """Grant what a node asks for as far as the queues' limits and the shares of the others allow it."""
    return [grant for ask in sorted(asks) if (grant := _settle(connection, owner, ask)) is not None]


def _settle(connection: Connection, owner: Owner, ask: Ask) -> Grant | None:
    of = connection.execute(select(queue, now().label("now")).where(queue.c.name == ask.queue).with_for_update())
    row = of.one_or_none()
    if row is None:
        return None
    shares = select(queue_share.c.node, queue_share.c.slots, queue_share.c.wanted).where(
        queue_share.c.queue == ask.queue, queue_share.c.node != owner.node
    )
    others = connection.execute(shares).all()
    wants = {other.node: other.wanted for other in others} | {owner.node: ask.wanted}
    slots, part = ask.keep, ask.wanted
    if row.max_concurrent_dispatches is not None:
        part = fair_part(row.max_concurrent_dispatches, wants, owner.node, int(row.now / TURN_SECONDS))
        free = row.max_concurrent_dispatches - sum(other.slots for other in others)
        slots = max(ask.keep, min(part, free))
    mine = {"queue": ask.queue, "node": owner.node, "slots": slots, "wanted": ask.wanted}
    insert_or_update(connection, queue_share, [mine])
    tokens, tokens_at = 0, math.inf
    if row.max_dispatches_per_second is not None:
        wanting = sum(1 for wanted in wants.values() if wanted)
        tokens, tokens_at = _take_tokens(connection, row, ask, wanting)
    return Grant(ask.queue, slots, part, tokens, tokens_at)


def _take_tokens(connection: Connection, row: Row[Any], ask: Ask, wanting: int) -> tuple[int, float]:
    """Take tokens out of a queue's bucket; return how many, and when to ask again."""
    rate = row.max_dispatches_per_second
    burst = float(row.max_burst_size) if row.max_burst_size is not None else default_burst(rate)
    bucket = Bucket(rate, burst, row.tokens if row.tokens_at else burst, row.tokens_at or row.now)
    bucket.refill(max(row.now, bucket.at))
    bucket.tokens = min(burst, bucket.tokens + ask.returned)
    there = math.floor(bucket.tokens)
    taken = min(ask.tokens, there, max(1, there // max(1, wanting)))
    bucket.tokens -= taken
    connection.execute(update(queue).where(queue.c.name == row.name).values(tokens=bucket.tokens, tokens_at=bucket.at))
    # Those that others want come between: who was served waits until they had as much. Not for each single one of many.
    enough = max(1.0, min(burst / 2, ask.tokens - taken), min(burst, taken * wanting) if wanting > 1 else 0.0)
    return taken, row.now + max(0.0, enough - bucket.tokens) / rate
