"""This process as one of the nodes that share a store: its heartbeat, the shards it holds, and who holds the others.

The store is right and memory follows: which shards are ours is read with each beat. Runs of a shard are taken up
after the store says that it is ours, and dropped from memory before the store is told that it is not.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Final

from hopline_engine.clock import DatabaseClock
from hopline_engine.core.model import RunId
from hopline_engine.core.names import public_id
from hopline_engine.core.shards import SHARDS, fair_share, shard_of
from hopline_engine.errors import RunMovingError
from hopline_engine.scheduler.coordinator import Coordinator
from hopline_engine.scheduler.ids import TimeOrderedIds
from hopline_engine.scheduler.resuming import Resumer
from hopline_engine.scheduler.rounds import rest
from hopline_engine.store import nodes, recovery
from hopline_engine.store.errors import OwnershipLostError, StoreClosedError
from hopline_engine.store.interface import Store
from hopline_engine.store.nodes import Heard, StoredNode

log = logging.getLogger(__name__)

BEATS_IN_SILENCE: Final = 5
"""How often a node beats in the time after which it is taken for dead."""

ALONE_SECONDS: Final = 5.0
"""How often a node beats that is alone, so that people see it is alive."""

SHARDS_AT_A_TIME: Final = 8
"""How many are taken up together: a heartbeat waits for the commit of what this decides."""

DRAIN_SECONDS: Final = 5.0
"""How long the runs of a shard that is to be given up send nothing, waiting for the answers to what is in flight."""

LOOKS: Final = 50
"""How often it is looked in that time whether nothing is in flight any more."""

REST_SECONDS: Final = 30.0
"""How long shards that did not drain are left in peace."""

BEATS_ALONE: Final = 6
"""Of so many beats one looks at what others may have changed while no other node is known."""

LEAVE_SECONDS: Final = 2.0
"""How long a node that stops waits for the store; without that, the others take it for dead after a while."""


class Membership:
    """Keeps this process a node, with its part of the shards."""

    def __init__(
        self,
        *,
        store: Store,
        clock: DatabaseClock,
        coordinator: Coordinator,
        resumer: Resumer,
        ids: TimeOrderedIds,
        silence: float,
        on_beat: Callable[[], Awaitable[None]],
        on_moved: Callable[[Collection[int]], None],
    ) -> None:
        """Make the membership of an engine whose store is open; nothing happens before ``open``.

        Args:
            store: shared or not.
            clock: corrected by each beat.
            coordinator: of the runs.
            resumer: takes up runs from rows.
            ids: gives out numbers of the shards that are held.
            silence: seconds after which a node is taken for dead.
            on_beat: looks at what other nodes may have changed.
            on_moved: told of the shards that are not ours any more.
        """
        self.url: str | None = None
        """Where other nodes reach this one."""
        self.takes_shards = False
        """Whether this node wants to work on runs."""
        self.on_taken: Callable[[Collection[int]], None] = _leave_as_they_are
        """Called with shards whose runs this node works on from now on."""
        self.lost: asyncio.Future[OwnershipLostError] = asyncio.get_running_loop().create_future()
        """Done when the others took this node for dead; then it is of no more use."""
        self._store = store
        self._owner = store.owner
        self._clock = clock
        self._coordinator = coordinator
        self._resumer = resumer
        self._ids = ids
        self._silence = silence
        self._on_beat = on_beat
        self._on_moved = on_moved
        self._held: set[int] = set()
        self._coming: set[int] = set()
        """Ours by the store; their runs are on the way to memory."""
        self._going: set[int] = set()
        """Not in memory any more, and ours by the store for a moment."""
        self._nodes: list[StoredNode] = []
        self._holders: dict[int, StoredNode] = {}
        self._wake = asyncio.Event()
        self._beating: asyncio.Task[None] | None = None
        self._moving: asyncio.Task[None] | None = None
        self._rest_until = 0.0
        self._beats = 0
        self._company_until = 0.0
        coordinator.listeners.lost = self._on_lost
        resumer.is_ours = self.is_ours

    # --- who works on what ------------------------------------------------------------------------------------------

    @property
    def held(self) -> frozenset[int]:
        """The shards whose runs this node works on."""
        return frozenset(self._held)

    def is_ours(self, run: RunId) -> bool:
        """Return whether this node works on a run, or is about to."""
        shard = shard_of(run)
        return shard in self._held or shard in self._coming

    def url_of(self, run: RunId) -> str | None:
        """Return where the node that works on a run is reached; ``None`` if it is this one.

        Raises:
            RunMovingError: no node is known to work on it now.
        """
        shard = shard_of(run)
        if shard in self._held:
            return None
        holder = self._holders.get(shard)
        if holder is None or holder.id == self._owner.node or holder.url is None:
            raise RunMovingError(run=public_id(run))
        return holder.url

    def has_company(self) -> bool:
        """Return whether others have the store open, or had a moment ago: only they change it besides this node.

        One that comes is known after a beat. So that nothing depends on it, who is told that there is nobody looks
        seldom, and does not cease to look.
        """
        return self._beating is None or self._clock.own() < self._company_until

    def nodes(self) -> list[tuple[str, str]]:
        """Return the id and the URL of every node that can be reached, by id."""
        return [(node.id, node.url) for node in self._nodes if node.url is not None]

    # --- life -------------------------------------------------------------------------------------------------------

    async def open(self, *, beats: bool = True) -> None:
        """Take up the runs of a store that is ours alone, and begin to beat unless nobody is to know of this node."""
        if self._owner.alone:
            self.takes_shards = True
        await self._hear()
        if self._owner.alone:
            # At once: in stores of before there were shards, families of runs are divided by them.
            await self._take_up(self._coming.copy())
        if beats:
            self._beating = asyncio.get_running_loop().create_task(self._beat_for_ever())

    def take_part(self, url: str | None) -> None:
        """Work on runs from now on; other nodes reach this one at *url*."""
        self.url = url
        self.takes_shards = True
        self._wake.set()

    async def leave(self) -> None:
        """Stop, and tell the others, who take up what this node had in memory."""
        for task in (self._beating, self._moving):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._owner.alone or self.lost.done():
            return
        self._ids.drop(range(SHARDS))
        self._coordinator.drop(range(SHARDS))
        leaving = asyncio.ensure_future(self._store.execute(partial(nodes.leave, owner=self._owner)))
        leaving.add_done_callback(_forget_error)
        done, _ = await asyncio.wait([leaving], timeout=LEAVE_SECONDS)
        if not done:
            log.warning("the store did not hear that this node stops; the others take it for dead after a while")

    async def _beat_for_ever(self) -> None:
        seconds = ALONE_SECONDS if self._owner.alone else self._silence / BEATS_IN_SILENCE
        while not self.lost.done():
            await rest(seconds, self._wake)
            try:
                await self.beat()
            except StoreClosedError:
                return
            except Exception:
                log.exception("a heartbeat failed; the next one comes soon")

    async def beat(self) -> None:
        """Show that this node is alive, learn who else is, and begin to move what has to be moved."""
        try:
            await self._hear()
        except OwnershipLostError as error:
            self._on_lost(error)
            return
        if self._moving is None or self._moving.done():
            self._moving = asyncio.get_running_loop().create_task(self._move())
        self._beats += 1
        if not self._owner.alone and (self.has_company() or self._beats % BEATS_ALONE == 0):
            await self._on_beat()

    async def moved(self) -> None:
        """Return when the shards that were to be moved have moved, or cannot be moved now."""
        if self._moving is not None:
            await asyncio.wait([self._moving])

    async def _hear(self) -> None:
        claims, before = self.takes_shards, self._clock.own()
        beat = partial(nodes.beat, owner=self._owner, silence=self._silence, url=self.url, claims=claims)
        heard = await self._store.execute(beat)
        self._clock.hear(heard.now, before=before, after=self._clock.own())
        self._note(heard)

    def _note(self, heard: Heard) -> None:
        for fenced in heard.fenced:
            log.warning("node %s was silent for too long; its work is taken over", fenced)
        self._nodes = heard.nodes
        if len(heard.nodes) > 1:
            self._company_until = self._clock.own() + self._silence
        self._holders = {shard: node for node in heard.nodes for shard in node.shards}
        mine = {shard for shard, node in self._holders.items() if node.id == self._owner.node}
        self._coming |= mine - self._held - self._going

    # --- moving shards ----------------------------------------------------------------------------------------------

    async def _move(self) -> None:
        try:
            while self._coming:
                await self._take_up(sorted(self._coming)[:SHARDS_AT_A_TIME])
            surplus = len(self._held) - fair_share(sum(node.takes_part for node in self._nodes))
            if surplus > 0:
                await self._give_up(surplus)
        except (OwnershipLostError, StoreClosedError):
            pass  # whoever beats tells of it
        except Exception:
            log.exception("shards could not be moved; it is tried again")

    async def _take_up(self, shards: Collection[int]) -> None:
        """Take up the runs of shards that are ours by the store."""
        last = await self._store.read(recovery.last_ids)
        await self._resumer.take_up(shards)
        taken = self._coming.intersection(shards)  # none, if this node was taken for dead meanwhile
        self._ids.take(taken, last_run=last.run, last_task=last.task)
        self._coming -= taken
        self._held |= taken
        self.on_taken(taken)

    async def _give_up(self, surplus: int) -> None:
        """Give up so many shards: those in which nothing is in flight first, then those that soon have nothing."""
        busy = self._coordinator.in_flight()
        chosen = set(sorted(self._held, key=lambda shard: busy[shard])[:surplus])
        await self._release({shard for shard in chosen if not busy[shard]})
        chosen &= self._held
        if not chosen or self._clock.own() < self._rest_until:
            return
        self._ids.drop(chosen)
        self._coordinator.hold_back(chosen)
        drained: set[int] = set()
        try:
            drained = await self._drained(chosen)
        finally:
            kept = (chosen - drained) & self._held
            self._coordinator.let_go(kept)
            self._ids.take(kept, last_run=0, last_task=0)
        if kept:
            self._rest_until = self._clock.own() + REST_SECONDS
        await self._release(drained)

    async def _drained(self, shards: set[int]) -> set[int]:
        """Wait a while for the answers to what is in flight; return the shards in which nothing is."""
        for _ in range(LOOKS):
            if not shards & self._coordinator.in_flight().keys():
                break
            await asyncio.sleep(DRAIN_SECONDS / LOOKS)
        return shards - self._coordinator.in_flight().keys()

    async def _release(self, shards: set[int]) -> None:
        """Drop the runs of shards, and then say so in the store, in order with all that was decided about them."""
        shards &= self._held
        if not shards:
            return
        self._ids.drop(shards)
        self._coordinator.drop(shards)
        self._held -= shards
        self._going |= shards
        self._on_moved(shards)
        try:
            await self._store.execute(partial(nodes.give_up, owner=self._owner, shards=sorted(shards)))
        finally:
            self._going -= shards

    def _on_lost(self, error: OwnershipLostError) -> None:
        """Drop everything: other nodes have taken over, or are about to."""
        if self.lost.done():
            return
        log.error("other nodes took this one for dead; it works on nothing any more")
        self.lost.set_result(error)
        self._held.clear()
        self._coming.clear()
        self._ids.drop(range(SHARDS))
        self._coordinator.sending.is_on = False
        self._coordinator.drop(range(SHARDS))
        self._on_moved(range(SHARDS))
        self._wake.set()


def _leave_as_they_are(_: Collection[int]) -> None:
    """Do nothing: the runs go on by themselves."""


def _forget_error(leaving: "asyncio.Future[None]") -> None:
    if not leaving.cancelled():
        leaving.exception()
