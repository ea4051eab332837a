"""What people and workers decide for all runs: the newest versions of workflows, and the state and limits of queues.

Other nodes may decide it too; ``refresh`` brings memory up to what the store says.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec

from hopline_engine.clock import Clock
from hopline_engine.core.definition import QueueSpec
from hopline_engine.core.model import Digest
from hopline_engine.core.plan import Plan
from hopline_engine.errors import QueueNotFoundError, closest
from hopline_engine.queue.admission import Admission, Queue
from hopline_engine.scheduler.definitions import Catalogue
from hopline_engine.store import definitions, queues
from hopline_engine.store.interface import Store
from hopline_engine.store.queues import QueueLimits, StoredQueue


class Controls:
    """Keeps workflows and queues, in the store and in memory."""

    def __init__(
        self, *, store: Store, catalogue: Catalogue, admission: Admission, clock: Clock, look_again: Callable[[], None]
    ) -> None:
        """Make controls that know nothing before ``load``; *look_again* admits what a change lets through."""
        self._store = store
        self._catalogue = catalogue
        self._admission = admission
        self._clock = clock
        self._look_again = look_again
        self._changing = 0
        self._changes = 0

    async def load(self) -> None:
        """Learn all that is stored."""
        await self._catalogue.load_current()
        for row in await self._store.read(queues.all_queues):
            self._limit(row)
            queue = self._admission.queues[row.name]
            queue.is_paused = row.state == "paused"
            if queue.bucket is not None and row.tokens_at and not queue.is_shared:
                queue.bucket.tokens, queue.bucket.at = row.tokens, row.tokens_at

    async def refresh(self) -> None:
        """Learn what other nodes have changed; what is being changed here is left for the next time."""
        changes = self._changes
        newest = await self._store.read(definitions.newest)
        if not self._catalogue.is_current(newest):
            await self._catalogue.load(set(newest.values()))
        rows = await self._store.read(queues.all_queues)
        if self._changing or self._changes != changes:
            return
        self._catalogue.set_current(newest)
        changed = [row.name for row in rows if self._learn(row)]
        gone = self._stored_once() - {row.name for row in rows}
        for name in gone:
            self._clear(name)
        if changed or gone:
            self._look_again()

    async def catch_up(self) -> None:
        """Learn of workflows that other nodes have registered, and of their queues; what is known stays as it is."""
        if self._store.owner.alone:
            return
        newest = await self._store.read(definitions.newest)
        new = {name: digest for name, digest in newest.items() if not self._catalogue.has(name)}
        if not new:
            return
        await self._catalogue.load(set(new.values()))
        for row in await self._store.read(queues.all_queues):
            if row.name not in self._admission.queues:
                self._learn(row)
        # What was registered here meanwhile is newer.
        self._catalogue.set_current({name: new[name] for name in new if not self._catalogue.has(name)})

    async def register(self, given: Iterable[Mapping[str, Any]], current: Iterable[str]) -> None:
        """Store definitions, make some the newest of their names, and set the limits of the queues they describe.

        Raises:
            InvalidDefinitionError: one is malformed; nothing is stored.
        """
        checked = self._catalogue.check(given)
        by_name = {definition.name: definition.digest for definition in checked.definitions}
        newest = {name: by_name[name] for name in current if name in by_name}
        queued = _queues_of(checked.plans[digest] for digest in newest.values())
        limits = [QueueLimits(**msgspec.structs.asdict(spec)) for spec in queued]
        now = self._clock.now()
        with self._change():
            await self._store.execute(partial(queues.set_limits, limits=limits))
            await self._store.execute(
                partial(definitions.register, definitions=checked.definitions, current=newest, now=now)
            )
            self._catalogue.add(checked)
            self._catalogue.set_current(newest)
            for each in limits:
                self._limit(each)
        self._look_again()

    async def meet(self, described: Iterable[QueueSpec]) -> None:
        """Set the limits of queues that no workflow named before; a change to known ones comes with a registration."""
        specs = [msgspec.structs.asdict(spec) for spec in described if spec.name not in self._admission.queues]
        limits = [QueueLimits(**spec) for spec in specs]
        if not limits:
            return
        with self._change():
            await self._store.execute(partial(queues.set_limits, limits=limits))
            for each in limits:
                self._limit(each)

    def queue(self, name: str) -> Queue:
        """Return a queue.

        Raises:
            QueueNotFoundError
        """
        found = self._admission.queues.get(name)
        if found is None:
            meant = closest(name, self._admission.queues)
            raise self._catalogue.missing(QueueNotFoundError(queue=name, did_you_mean=meant))
        return found

    async def pause_queue(self, name: str, *, paused: bool, is_stored: bool = False) -> None:
        """Pause or resume a queue, durably; one that *is_stored* and is deleted meanwhile stays deleted.

        Raises:
            QueueNotFoundError
        """
        queue = self.queue(name)
        before = queue.is_paused
        # First in memory: rows of the queue that are written from now on say the same. And stored in any case: what
        # memory says already may be on its way to the disk, for somebody else who waits for it.
        queue.is_paused = paused
        with self._change():
            try:
                await self._store.execute(
                    partial(queues.pause, limits=_limits(queue), paused=paused, is_stored=is_stored)
                )
            except BaseException:
                queue.is_paused = before
                raise
        self._look_again()

    async def limit_queue(self, limits: QueueLimits) -> None:
        """Set the limits of a queue, durably.

        Raises:
            QueueNotFoundError
        """
        self.queue(limits.name)
        with self._change():
            await self._store.execute(partial(queues.set_limits, limits=[limits]))
            self._limit(limits)
        self._look_again()

    def hear(self, limits: QueueLimits, *, paused: bool) -> None:
        """Take over what somebody else in this process has stored of a queue."""
        with self._change():
            self._limit(limits)
            self._admission.queues[limits.name].is_paused = paused
        self._look_again()

    def forget(self, name: str) -> None:
        """Let go of a queue before its row is deleted: of one without limits nothing is stored as it moves."""
        with self._change():
            self._clear(name)

    def described(self, name: str) -> QueueLimits | None:
        """Return the limits that workflows describe a queue with, if one does."""
        specs = (spec for spec in _queues_of(self._catalogue.all_current()) if spec.name == name)
        spec = next(specs, None)
        return None if spec is None else QueueLimits(**msgspec.structs.asdict(spec))

    @contextmanager
    def _change(self) -> Iterator[None]:
        """Keep what is read meanwhile from undoing in memory what is changed here."""
        self._changing += 1
        try:
            yield
        finally:
            self._changing -= 1
            self._changes += 1

    def _learn(self, row: StoredQueue) -> bool:
        """Take over what is stored of a queue; return whether it was new."""
        known = self._admission.queues.get(row.name)
        is_paused = row.state == "paused"
        if known is not None and (_limits(known), known.is_paused) == (row.limits, is_paused):
            return False
        self._limit(row)
        self._admission.queues[row.name].is_paused = is_paused
        return True

    def _stored_once(self) -> set[str]:
        """Return the queues of which memory says what only rows can say."""
        return {queue.name for queue in self._admission.queues.values() if queue.is_shared or queue.is_paused}

    def _clear(self, name: str) -> None:
        """Take over that nothing is stored of a queue."""
        self._limit(QueueLimits(name=name))
        queue = self._admission.queues[name]
        queue.is_paused = False
        if self._store.owner.alone and not queue.ready:
            del self._admission.queues[name]

    def _limit(self, limits: QueueLimits) -> None:
        queue = self._admission.queues.setdefault(limits.name, Queue(limits.name))
        rate, concurrent = limits.max_dispatches_per_second, limits.max_concurrent_dispatches
        queue.is_shared = not self._store.owner.alone and (rate, concurrent) != (None, None)
        queue.limit(rate, limits.max_burst_size, concurrent, self._clock.now())


def _queues_of(plans: Iterable[Plan]) -> list[QueueSpec]:
    """Return the queues that workflows describe, and those that the workflows describe which they call."""
    pending, seen = list(plans), dict[Digest, Plan]()
    while pending:
        plan = pending.pop()
        if plan.digest not in seen:
            seen[plan.digest] = plan
            pending += [node.child for node in plan.nodes if node.child is not None]
    return [spec for plan in reversed(seen.values()) for spec in plan.queues]


def _limits(queue: Queue) -> QueueLimits:
    return QueueLimits(
        name=queue.name,
        max_dispatches_per_second=queue.max_dispatches_per_second,
        max_burst_size=queue.max_burst_size,
        max_concurrent_dispatches=queue.max_concurrent_dispatches,
    )
