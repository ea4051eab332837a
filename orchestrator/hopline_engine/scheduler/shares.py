"""This node's part of the limits of queues that several nodes share.

Admission looks only at what was granted. Here is asked for more when due tasks lack it, and given back what others
want or nobody here uses. Before the store is told that this node keeps fewer slots, it uses no more than those; more
are used only after the store has granted them. So what is in flight is never more than the store says.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from hopline_engine.clock import Clock
from hopline_engine.queue.admission import Admission, Queue
from hopline_engine.scheduler.rounds import go_round
from hopline_engine.store import shares
from hopline_engine.store.interface import Store
from hopline_engine.store.shares import Ask, Grant

ROUND_SECONDS: Final = 0.25
"""How often a queue in use is looked at: for what others want, and for what this node wants and did not get."""

LEAST_SECONDS: Final = 0.005
"""The least time between two questions, so that a fast queue does not keep the store busy."""


@dataclass(slots=True)
class _Part:
    """What the store says this node has of one queue."""

    slots: int = 0
    part: int = 0
    """As many are this node's while others want the rest."""
    wanted: int = 0
    recent: int = 0
    """How many were in use or due at the last round: what was needed a moment ago is kept a moment longer."""
    returned: float = 0.0
    """Tokens that were not used, to be given back."""
    round_at: float = 0.0
    slots_at: float = 0.0
    """When asking for more slots is of use."""
    tokens_at: float = 0.0
    """When asking for more tokens is of use."""

    @property
    def is_idle(self) -> bool:
        """Whether the store has nothing of this node that it might take back."""
        return not (self.slots or self.wanted or self.returned)

    def ask_at(self, queue: Queue, now: float) -> float:
        """Return when it is of use to ask for what the queue lacks; at once, if the clock has been set back since."""
        if not queue.is_full:
            return self.tokens_at
        return self.slots_at if self.slots_at <= now + ROUND_SECONDS else now

    def owes(self, queue: Queue) -> bool:
        """Return whether this node has free slots that others want."""
        return self.slots > self.part and self.slots > queue.in_flight


class Shares:
    """Asks the store for slots and tokens."""

    def __init__(self, *, store: Store, admission: Admission, clock: Clock, look_again: Callable[[], None]) -> None:
        """Make shares that ask nothing before ``run``; *look_again* admits what a grant lets through."""
        self._store = store
        self._admission = admission
        self._clock = clock
        self._look_again = look_again
        self._parts: dict[Queue, _Part] = {}
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Ask again and again, until cancelled; what this node has then goes with its row."""
        await go_round(
            self._ask_and_pause,
            wake=self._wake,
            rest_seconds=self._seconds_to_next,
            again_seconds=ROUND_SECONDS,
            trouble="limits of queues could not be settled",
        )

    def look(self, now: float) -> None:
        """Note what lacks a slot or a token, and what is free that others wait for; called after each admission."""
        is_short = any(self._part(queue).ask_at(queue, now) <= now for queue in self._admission.shared_short())
        if is_short or any(part.owes(queue) for queue, part in self._parts.items()):
            self._wake.set()

    async def ask(self) -> None:
        """Ask the store about every queue that needs it now, and use what it grants."""
        now = self._clock.now()
        asks = [self._ask(queue, now) for queue in self._needy(now)]
        if not asks:
            return
        for grant in await self._store.execute(partial(shares.settle, owner=self._store.owner, asks=asks)):
            self._apply(grant)
        self._look_again()
        for ask in asks:
            self._take_back_tokens(self._admission.queues[ask.queue])

    async def _ask_and_pause(self) -> None:
        await self.ask()
        await asyncio.sleep(LEAST_SECONDS)

    def _seconds_to_next(self) -> float | None:
        """Return how long to wait unless woken; ``None`` when there is nothing to wait for."""
        now = self._clock.now()
        times = [part.round_at for part in self._parts.values() if not part.is_idle]
        times += [self._part(queue).ask_at(queue, now) for queue in self._admission.shared_short()]
        return max(0.0, min(times) - now) if times else None

    def _part(self, queue: Queue) -> _Part:
        part = self._parts.get(queue)
        if part is None:
            part = self._parts[queue] = _Part()
        return part

    def _needy(self, now: float) -> list[Queue]:
        """Return the queues about which to ask now."""
        needy = [queue for queue in self._admission.shared_short() if self._part(queue).ask_at(queue, now) <= now]
        needy += [
            queue
            for queue, part in self._parts.items()
            if (part.round_at <= now and not part.is_idle) or part.owes(queue)
        ]
        return list(dict.fromkeys(needy))

    def _ask(self, queue: Queue, now: float) -> Ask:
        part = self._part(queue)
        # One whose limits were taken away is asked about once more, to give everything back.
        used = queue.in_flight + queue.ready if queue.is_shared else 0
        part.wanted = max(used, part.recent)
        if part.round_at <= now:
            part.round_at = now + ROUND_SECONDS
            part.recent = used
        returned, part.returned, queue.unused = part.returned + queue.unused, 0.0, 0.0
        keep, tokens = 0, queue.ready
        if queue.is_shared and queue.slots is not None and queue.max_concurrent_dispatches is not None:
            # What was granted under a limit that has been lowered since is not used any more.
            queue.slots = min(part.slots, part.wanted, part.part, queue.max_concurrent_dispatches)
            keep = max(queue.slots, queue.in_flight)
            tokens = min(tokens, keep - queue.in_flight)
        if not queue.is_shared or queue.bucket is None or queue.is_paused:
            tokens = 0
        return Ask(queue.name, keep, part.wanted, tokens, returned)

    def _apply(self, grant: Grant) -> None:
        queue, now = self._admission.queues[grant.queue], self._clock.now()
        part = self._parts[queue]
        part.slots, part.part = grant.slots, grant.part
        part.tokens_at = grant.tokens_at
        if not queue.is_shared:
            return
        if queue.slots is not None:
            queue.slots = min(grant.slots, grant.part)
            part.slots_at = now + ROUND_SECONDS if queue.slots < part.wanted else now
        if queue.bucket is not None:
            queue.bucket.tokens = float(grant.tokens)

    def _take_back_tokens(self, queue: Queue) -> None:
        """Use no token later than when it was granted: that would be a burst greater than the queue's."""
        if queue.is_shared and queue.bucket is not None and queue.bucket.tokens:
            part = self._parts[queue]
            part.returned += queue.bucket.tokens
            part.tokens_at = max(part.tokens_at, self._clock.now() + ROUND_SECONDS)
            queue.bucket.tokens = 0.0
