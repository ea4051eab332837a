"""Graphs that workers trace in the course of runs: read, checked, and made ready to be stored with the run of each.

Calls of one dynamic workflow that wired the same graph share its plan, which is kept as long as a live run has it.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import msgspec

from hopline_engine.clock import Clock
from hopline_engine.core.definition import QueueSpec
from hopline_engine.core.live import Traced
from hopline_engine.core.model import DefinitionAdded, Digest
from hopline_engine.core.plan import Plan
from hopline_engine.core.retry import Failure
from hopline_engine.errors import InvalidDefinitionError
from hopline_engine.queue.outcomes import Failed, Succeeded
from hopline_engine.scheduler.definitions import Catalogue, canonical
from hopline_engine.store.definitions import StoredDefinition


@dataclass(frozen=True, slots=True)
class Pinned:
    """The outcome of an attempt at a dynamic workflow: its graph is known and can be stored."""

    graph: Traced
    status: int
    logs: str | None


class _Answer(msgspec.Struct):
    definitions: list[dict[str, Any]]
    """That of the graph first, then those of the workflows that it calls."""
    input: msgspec.Raw


_decode = msgspec.json.Decoder(_Answer).decode


class Pinning:
    """Knows the graphs of live runs, and which of them are stored."""

    def __init__(
        self, catalogue: Catalogue, clock: Clock, on_queues: Callable[[Iterable[QueueSpec]], Awaitable[None]]
    ) -> None:
        """Make one; *on_queues* makes durable what a new graph says of its queues, before a run of it begins."""
        self._catalogue = catalogue
        self._clock = clock
        self._on_queues = on_queues
        self._plans: WeakValueDictionary[Digest, Plan] = WeakValueDictionary()
        self._stored: WeakValueDictionary[Digest, Plan] = WeakValueDictionary()
        """Those of which the definition needs no row any more."""

    async def read(self, answer: Succeeded) -> Pinned | Failed:
        """Return the graph in the answer of a worker, or why there is none that can be run."""
        try:
            traced = _decode(answer.result)
            received = [canonical(given) for given in traced.definitions]
            graph = received[0]
            plan = self._plans.get(graph.digest) or self._catalogue.build(graph.digest, received)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, IndexError) as error:
            return _unusable(f"the worker answered with no graph: {error}", answer.logs)
        except InvalidDefinitionError as error:
            return _unusable(f"the worker traced a graph that cannot be run: {error.message}", answer.logs)
        if graph.digest not in self._plans:
            await self._on_queues(plan.queues)
            plan = self._plans.setdefault(graph.digest, plan)
        pinned = Traced(plan, bytes(traced.input), self._missing(graph, received))
        return Pinned(pinned, answer.status, answer.logs)

    def stored(self, definitions: Iterable[DefinitionAdded]) -> None:
        """Note that definitions are durable."""
        for each in definitions:
            plan = self._plans.get(each.digest)
            if plan is not None:
                self._stored[each.digest] = plan

    def _missing(self, graph: StoredDefinition, received: list[StoredDefinition]) -> list[DefinitionAdded]:
        if graph.digest in self._stored:
            return []
        now = self._clock.now()
        return [DefinitionAdded(each.digest, each.name, now, each.body) for each in received]


def _unusable(message: str, logs: str | None) -> Failed:
    return Failed(Failure("DefinitionError", message, ("DefinitionError",), final=True), logs=logs)
