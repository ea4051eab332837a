"""The workers that are there now, what they serve, and their free slots.

Memory only: a worker registers again when the engine that it talks to has forgotten it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakValueDictionary

import httpx

from hopline_engine.core.plan import Route
from hopline_engine.queue.transport import Endpoint


@dataclass(slots=True, eq=False, weakref_slot=True)
class Load:
    """What a worker process has to do: the same for all registrations under its id."""

    in_flight: int = 0


class ServedFile(NamedTuple):
    """A file of workflows as a worker has loaded it."""

    path: str
    """Absolute, on the worker's host."""
    sha256: str
    workflows: tuple[str, ...]


@dataclass(slots=True, eq=False)
class Worker:
    """One worker process."""

    id: str
    url: str
    token: str = field(repr=False)
    concurrency: int
    """Steps it executes at a time."""
    routes: frozenset[Route]
    pid: int | None
    host: str | None
    seen_at: float
    files: tuple[ServedFile, ...] = ()
    reloads: bool = False
    """Whether another worker takes its place when its files change."""
    load: Load = field(default_factory=Load, repr=False)
    _endpoints: dict[Route, Endpoint] = field(default_factory=dict, repr=False)

    @property
    def in_flight(self) -> int:
        """How many steps it was sent that are not answered."""
        return self.load.in_flight

    @property
    def is_free(self) -> bool:
        """Whether it can take one more step."""
        return self.load.in_flight < self.concurrency

    @property
    def authorization(self) -> bytes:
        """The header value that it asks of whoever calls it."""
        return b"Bearer " + self.token.encode()

    def endpoint_of(self, route: Route) -> Endpoint:
        """Return the address of a step at this worker, with the headers that all requests for it have."""
        endpoint = self._endpoints.get(route)
        if endpoint is None:
            endpoint = self._endpoints[route] = self._new_endpoint(route)
        return endpoint

    def _new_endpoint(self, route: Route) -> Endpoint:
        headers = (
            (b"Authorization", self.authorization),
            (b"Hopline-Signature", route.signature.encode()),
            (b"Content-Type", b"application/json"),
        )
        return Endpoint.of("POST", httpx.URL(f"{self.url}/steps/{route.step}"), headers)


class Workers:
    """All workers, by what they serve."""

    def __init__(self) -> None:
        self._by_id: dict[str, Worker] = {}
        self._by_route: dict[Route, list[Worker]] = {}
        self._loads: WeakValueDictionary[str, Load] = WeakValueDictionary()
        """As long as a worker is known or a request to it is out."""

    def __iter__(self) -> Iterator[Worker]:
        return iter(list(self._by_id.values()))

    def get(self, worker: str) -> Worker | None:
        """Return a worker, if it is known."""
        return self._by_id.get(worker)

    def add(self, worker: Worker) -> None:
        """Add a worker, in place of an earlier registration of the same process."""
        self.remove(worker.id)
        worker.load = self._loads.setdefault(worker.id, worker.load)
        self._by_id[worker.id] = worker
        for route in worker.routes:
            self._by_route.setdefault(route, []).append(worker)

    def remove(self, worker: str) -> Worker | None:
        """Send a worker nothing more; return it if it was known. What it still runs may be answered."""
        removed = self._by_id.pop(worker, None)
        if removed is None:
            return None
        for route in removed.routes:
            serving = self._by_route[route]
            serving.remove(removed)
            if not serving:
                del self._by_route[route]
        return removed

    def silent_since(self, before: float) -> list[Worker]:
        """Return the workers that were last seen before a time."""
        return [worker for worker in self._by_id.values() if worker.seen_at < before]

    def serving(self, route: Route) -> list[Worker]:
        """Return the workers that serve a step."""
        return self._by_route.get(route, [])

    def reserve(self, route: Route) -> Worker | None:
        """Take a slot of the least busy worker that serves a step, if one is free."""
        serving = self._by_route.get(route)
        if not serving:
            return None
        least = (
            serving[0] if len(serving) == 1 else min(serving, key=lambda worker: worker.in_flight / worker.concurrency)
        )
        if not least.is_free:
            return None
        least.load.in_flight += 1
        return least

    def unserved(self, routes: Iterable[Route]) -> list[Route]:
        """Return those of the routes that no worker serves."""
        return [route for route in routes if route not in self._by_route]


def routes_of(steps: Iterable[tuple[str, str]]) -> frozenset[Route]:
    """Return the routes of steps that a worker announces by name and signature."""
    return frozenset(Route(name, signature) for name, signature in steps)
