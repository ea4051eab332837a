"""Who wants to know when a run changes."""

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from hopline_engine.core.live import LiveRun
from hopline_engine.core.model import RunId
from hopline_engine.core.shards import shard_of


class Watch:
    """Gathers what changed in one run until it is asked for."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._nodes: set[int] = set()
        self._is_over = False

    def end(self) -> None:
        """Let whoever waits go: nothing more will be seen."""
        self._is_over = True
        self._changed.set()

    def add(self, nodes: set[int]) -> None:
        """Note that a run, and steps of it, changed."""
        self._nodes |= nodes
        self._changed.set()

    async def changes(self) -> set[int] | None:
        """Wait for a change, and return the steps (by position in the plan) that changed; ``None`` at the end."""
        await self._changed.wait()
        if self._is_over:
            return None
        self._changed.clear()
        nodes, self._nodes = self._nodes, set()
        return nodes


class Watchers:
    """All watches, by run."""

    def __init__(self) -> None:
        self._by_run: dict[RunId, list[Watch]] = {}

    @contextmanager
    def watch(self, run: RunId) -> Iterator[Watch]:
        """Watch a run as long as the context lasts."""
        watch = Watch()
        self._by_run.setdefault(run, []).append(watch)
        try:
            yield watch
        finally:
            watches = self._by_run[run]
            watches.remove(watch)
            if not watches:
                del self._by_run[run]

    def end(self) -> None:
        """End all watches: the engine stops."""
        for watches in self._by_run.values():
            for watch in watches:
                watch.end()

    def end_of(self, shards: Collection[int]) -> None:
        """End the watches of runs that another node works on from now on; it knows what becomes of them."""
        for run, watches in self._by_run.items():
            if shard_of(run) in shards:
                for watch in watches:
                    watch.end()

    def tell(self, run: LiveRun, nodes: set[int]) -> None:
        """Tell whoever watches a run that it changed."""
        for watch in self._by_run.get(run.id, ()):
            watch.add(nodes)
