"""What other nodes do to the queues of the service: queues that they make, purge or delete, tasks that they leave.

A node sends the tasks that were made at it, and reads those of others only if they were not sent in time. So nodes
that keep up do not read each other's tasks; and what two of them read, the rows give to one.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import Final, Protocol

from hopline_engine.clock import Clock
from hopline_engine.core.cloud.model import QueueState
from hopline_engine.errors import UnavailableError
from hopline_engine.queue.pusher import Pusher
from hopline_engine.queue.windows import WINDOW
from hopline_engine.store import cloud_pushes, cloud_queues
from hopline_engine.store.cloud_queues import Edition
from hopline_engine.store.errors import StoreError
from hopline_engine.store.interface import Store
from hopline_engine.store.queues import QueueLimits

log = logging.getLogger(__name__)

FOLLOW_SECONDS: Final = 1.0
"""How often it is looked what other nodes have made, and how long their tasks are left to them."""
ROUNDS_ALONE: Final = 10
"""Of so many rounds one looks while no other node is known."""
CAUGHT_UP_AT_ONCE: Final = 10 * WINDOW
"""Overdue tasks that are read at a time."""


class Hear(Protocol):
    """Takes over what was stored of a queue."""

    def __call__(self, limits: QueueLimits, *, paused: bool) -> None:
        """Keep to it from now on."""
        ...


class Follower:
    """Has a pusher keep up with the other nodes of its store."""

    def __init__(
        self, *, store: Store, pusher: Pusher, clock: Clock, hear: Hear, has_company: Callable[[], bool]
    ) -> None:
        """Make a follower of an open pusher.

        Args:
            store: that the engine has open.
            pusher: sends the tasks.
            clock: of the engine.
            hear: takes over the limits of a queue.
            has_company: returns whether there may be other nodes.
        """
        self._store = store
        self._pusher = pusher
        self._clock = clock
        self._hear = hear
        self._has_company = has_company
        self._editions: dict[str, Edition] = {}
        """The queues as they were seen last."""
        self._nodes: frozenset[str] = frozenset()
        """The nodes that were seen last."""

    async def run(self) -> None:
        """Look from time to time until cancelled; at once if no other node can have the store open."""
        if self._store.owner.alone:
            return
        for number in count():
            try:
                if self._has_company() or number % ROUNDS_ALONE == 0:
                    await self.look()
            except (StoreError, UnavailableError):
                log.exception("it could not be looked what other nodes have made")
            await asyncio.sleep(FOLLOW_SECONDS)

    async def look(self) -> None:
        """Take over what has changed since the last look."""
        await self._learn_queues()
        await self._learn_nodes()
        await self._catch_up()

    async def _learn_queues(self) -> None:
        """Take up queues that are new, let go of those that are gone, and read those again that were emptied."""
        known = self._pusher.queues
        editions = await self._store.read(cloud_queues.editions)
        for key in known - editions.keys():
            self._pusher.drop_queue(key)
        for key, edition in editions.items():
            if self._editions.get(key, edition) != edition:
                self._pusher.drop_queue(key)
            if key not in self._pusher.queues:
                await self._take_up(key)
        self._editions = editions

    async def _take_up(self, key: str) -> None:
        """Send the tasks of a queue that another node has made, once its limits are known."""
        queue = await self._store.read(partial(cloud_queues.find, key=key))
        if queue is not None:
            self._hear(cloud_queues.limits_of(key, queue.rate_limits), paused=queue.state is not QueueState.RUNNING)
            self._pusher.add_queue(key)

    async def _learn_nodes(self) -> None:
        """Send again what a node had sent that is gone, and learn what it would have sent later."""
        nodes = await self._store.read(cloud_pushes.nodes)
        gone, self._nodes = self._nodes - nodes, nodes
        if gone:
            await self._pusher.take_back()
            self._pusher.read_all_again()

    async def _catch_up(self) -> None:
        """Take in tasks that should have been sent a while ago, and that are not known here."""
        now = self._clock.now()
        overdue = partial(
            cloud_pushes.overdue,
            since=now - FOLLOW_SECONDS,
            without=self._pusher.queues_with_much_due(now),
            limit=CAUGHT_UP_AT_ONCE,
        )
        for row in await self._store.read(overdue):
            if self._pusher.lacks(row.queue, row.id):
                self._pusher.note(row.queue, row.id, row.schedule_time)
