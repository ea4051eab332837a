"""How exactly limits, delays and deliveries are kept, measured at the target, against a server of its own.

``python -m tests.queue_api.conformance`` measures for a minute each and prints what it found; the tests of this folder
do the same for a few seconds.
"""

import argparse
import asyncio
import random
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import accumulate, count, pairwise
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import grpc.aio
from google.api_core.exceptions import AlreadyExists, GoogleAPICallError, RetryError
from google.cloud import tasks_v2
from google.cloud.tasks_v2.services.cloud_tasks.transports import (
    CloudTasksGrpcAsyncIOTransport,
    CloudTasksGrpcTransport,
)
from google.protobuf.duration_pb2 import Duration

from hopline_engine import clock
from tests.support.ports import free_port
from tests.support.postgres import database_for_threads
from tests.support.processes import EngineProcess
from tests.support.waiting import WITHIN, eventually

PARENT = "projects/p/locations/l"
OFTEN = [("grpc.max_reconnect_backoff_ms", 200)]
AT_A_TIME = 32
MOST_KILLS = 30
"""Of a server that, on a busy machine, takes long to start and so does little between two of them."""
"""Calls of the client that are under way."""


class Arrival(NamedTuple):
    """A request that reached the target."""

    at: float
    task: str
    attempt: int


@dataclass(slots=True)
class Target:
    """Answers every request alike, after a while; fast enough to be no part of what is measured."""

    url: str = ""
    status: int = 200
    seconds: float = 0.0
    """How long an answer takes."""
    arrivals: list[Arrival] = field(default_factory=list)
    moves: list[tuple[float, int]] = field(default_factory=list)
    """When requests came (1) and were answered (-1)."""

    def begin(self) -> None:
        """Forget what was seen, once nothing comes any more."""
        eventually(lambda: not self.moves or clock.now() > self.moves[-1][0] + 0.5, "nothing comes any more", 60)
        self.arrivals = []
        self.moves = []

    def most_in_flight(self) -> int:
        """Return how many requests were unanswered at the same moment."""
        return max(accumulate(move for _, move in self.moves), default=0)

    def mean_in_flight(self, begin: float, end: float) -> float:
        """Return how many requests were unanswered on average between two times."""
        counts = accumulate(move for _, move in self.moves)
        spans = zip(self.moves, [*self.moves[1:], (end, 0)], counts, strict=True)
        parts = ((max(begin, at), min(end, until), count) for (at, _), (until, _), count in spans)
        return sum((until - at) * count for at, until, count in parts if until > at) / (end - begin)


class _Serving(asyncio.Protocol):
    def __init__(self, target: Target, loop: asyncio.AbstractEventLoop) -> None:
        self._target = target
        self._loop = loop
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(body) < int(headers.get(b"content-length", 0)):
            return
        self._received = b""
        now = clock.now()
        name, count = headers[b"x-cloudtasks-taskname"].decode(), int(headers[b"x-cloudtasks-taskretrycount"])
        self._target.arrivals.append(Arrival(now, name, count + 1))
        self._target.moves.append((now, 1))
        if self._target.seconds:
            self._loop.call_later(self._target.seconds, self._answer)
        else:
            self._answer()

    def _answer(self) -> None:
        self._target.moves.append((clock.now(), -1))
        self._transport.write(b"HTTP/1.1 %d Told\r\nContent-Length: 0\r\n\r\n" % self._target.status)


@contextmanager
def serving() -> Iterator[Target]:
    """Run a target in a thread of its own."""
    target, loop = Target(), asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(lambda: _Serving(target, loop), "127.0.0.1", 0, backlog=4096))
    target.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield target
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        loop.close()


class Service:
    """``hopline serve`` with gRPC, and Google's client for it."""

    def __init__(self, folder: Path, store: str) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        environment = {"HOPLINE_GRPC_PORT": self.address.rpartition(":")[2], "HOPLINE_NODE_SILENCE_SECONDS": "1"}
        self.engine = EngineProcess(folder, environment | ({"HOPLINE_STORE": store} if store else {}))
        self._channel = grpc.insecure_channel(self.address, options=OFTEN)
        self.client = tasks_v2.CloudTasksClient(transport=CloudTasksGrpcTransport(channel=self._channel))

    def start(self) -> None:
        """Start it and return when it answers."""
        self.engine.start()
        asyncio.run(self.engine.ready())
        grpc.channel_ready_future(self._channel).result(WITHIN)

    def close(self) -> None:
        """End it."""
        self._channel.close()
        self.engine.kill()

    def queue(self, **fields: Any) -> str:
        """Make a queue and pause it."""
        name = f"{PARENT}/queues/q-{clock.token(6)}"
        self.client.create_queue(request={"parent": PARENT, "queue": {"name": name, **fields}})
        self.client.pause_queue(name=name)
        return name

    def fill(self, queue: str, url: str, count: int) -> None:
        """Add tasks."""
        requests = [{"parent": queue, "task": {"http_request": {"url": url}}}] * 100
        for left in range(count, 0, -100):
            self.client.batch_create_tasks(request={"parent": queue, "requests": requests[:left]})

    def is_empty(self, queue: str) -> bool:
        """Return whether a queue has no tasks."""
        return not list(self.client.list_tasks(parent=queue))


@contextmanager
def running(store: str) -> Iterator[Service]:
    """Run a service on a store of a kind: ``sqlite`` or ``postgres``."""
    folder = Path(tempfile.mkdtemp(prefix="hopline-conformance-"))
    database = database_for_threads() if store == "postgres" else nullcontext("")
    try:
        with database as url:
            service = Service(folder, url)
            service.start()
            try:
                yield service
            finally:
                service.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# --- what is measured ---------------------------------------------------------------------------------------------


class Rate(NamedTuple):
    """How a rate was kept."""

    sent: int
    allowed: float
    """What a full bucket and the rate allow in the time."""
    ahead: float
    """By how many requests all that came until any moment exceeded what the time since the queue was resumed, and the
    burst, allow. Never too much because the machine that counts is slow."""
    excess: float
    """By how many requests any span of time exceeded what its length and the burst allow."""
    at_once: float
    """Requests of the first fifth of a second, without those that the rate allows in it."""


def rate(service: Service, target: Target, *, per_second: float, seconds: float) -> Rate:
    """Send as fast as a queue allows."""
    target.begin()
    queue = service.queue(rate_limits={"max_dispatches_per_second": per_second})
    burst = service.client.get_queue(name=queue).rate_limits.max_burst_size
    allowed = burst + per_second * seconds
    service.fill(queue, target.url, int(allowed * 1.1) + 10)
    resumed = clock.now()
    service.client.resume_queue(name=queue)
    eventually(lambda: target.arrivals and clock.now() > target.arrivals[0].at + seconds + 0.1, "time is up", 600)
    service.client.delete_queue(name=queue)
    times = sorted(arrival.at for arrival in target.arrivals)
    above = [number - per_second * at for number, at in enumerate(times)]
    lowest = accumulate(above, min)
    excess = max(high + 1 - low for high, low in zip(above, lowest, strict=True)) - burst
    at_once = sum(at < times[0] + 0.2 for at in times) - 0.2 * per_second
    ahead = max(number - per_second * (at - resumed) for number, at in enumerate(times, start=1)) - burst
    return Rate(sum(at <= times[0] + seconds for at in times), allowed, ahead, excess, at_once)


class Concurrency(NamedTuple):
    """How a limit of requests in flight was kept."""

    most: int
    mean: float


def concurrency(service: Service, target: Target, *, limit: int, seconds: float, each: float) -> Concurrency:
    """Send requests that take *each* seconds, as many at a time as a queue allows."""
    target.begin()
    target.seconds = each
    queue = service.queue(rate_limits={"max_concurrent_dispatches": limit})
    service.fill(queue, target.url, int(limit * (seconds / each + 2)))
    service.client.resume_queue(name=queue)
    eventually(lambda: target.arrivals and clock.now() > target.arrivals[0].at + each + seconds, "time is up", 600)
    service.client.delete_queue(name=queue)
    begin = target.arrivals[0].at + each
    found = Concurrency(target.most_in_flight(), target.mean_in_flight(begin, begin + seconds))
    target.seconds = 0.0
    return found


def delays(service: Service, target: Target, *, lo: float, hi: float, doublings: int, attempts: int) -> list[float]:
    """Return by how many seconds each attempt came after its time."""
    target.begin()
    target.status = 500
    spans = {"min_backoff": _duration(lo), "max_backoff": _duration(hi)}
    queue = service.queue(retry_config={**spans, "max_doublings": doublings, "max_attempts": attempts})
    service.fill(queue, target.url, 1)
    service.client.resume_queue(name=queue)
    eventually(lambda: len(target.arrivals) == attempts, "all attempts are made", 600)
    target.status = 200
    waits = [later.at - earlier.at for earlier, later in pairwise(target.arrivals)]
    return [wait - expected for wait, expected in zip(waits, formula(lo, hi, doublings), strict=False)]


def formula(lo: float, hi: float, doublings: int) -> Iterator[float]:
    """Yield the waits that the reference describes."""
    wait = lo
    for number in count(1):
        yield min(hi, wait)
        wait += wait if number <= doublings else lo * 2**doublings


class Delivered(NamedTuple):
    """What became of tasks."""

    created: int
    delivered: int
    """Tasks that reached the target."""
    repeated: int
    """Requests beyond the first of each task."""
    kills: int


def delivery(service: Service, target: Target, *, tasks: int) -> Delivered:
    """Create tasks one by one while they are sent."""
    target.begin()
    queue = service.queue()
    service.client.resume_queue(name=queue)
    names = asyncio.run(_created(service, queue, [{"http_request": {"url": target.url}}] * tasks))
    return _settled(service, target, queue, names, 0)


def kills(service: Service, target: Target, *, tasks: int, every: float, seed: int = 1) -> Delivered:
    """Create tasks while the server is killed and started again."""
    target.begin()
    target.seconds = 0.01
    queue = service.queue()
    service.client.resume_queue(name=queue)
    told = [{"name": f"{queue}/tasks/t{number}", "http_request": {"url": target.url}} for number in range(tasks)]
    dice, killed = random.Random(seed), 0
    with ThreadPoolExecutor(1) as creating:
        created = creating.submit(asyncio.run, _created(service, queue, told))
        # Here and not in that thread: a process that a thread has started ends with the thread.
        while killed < MOST_KILLS and not wait([created], timeout=every * (0.5 + dice.random())).done:
            service.engine.kill()
            killed += 1
            service.start()
    names = created.result()
    found = _settled(service, target, queue, names, killed)
    target.seconds = 0.0
    return found


async def _created(service: Service, queue: str, tasks: Sequence[dict[str, Any]]) -> list[str]:
    """Create tasks with the asynchronous client, again and again until the server has said that it has them."""
    waiting = list(reversed(tasks))
    names: list[str] = []
    async with grpc.aio.insecure_channel(service.address, options=OFTEN) as channel:
        transport = CloudTasksGrpcAsyncIOTransport(channel=channel)
        client = tasks_v2.CloudTasksAsyncClient(transport=transport)

        async def create() -> None:
            while waiting:
                task = waiting.pop()
                request: Any = {"parent": queue, "task": task}
                try:
                    names.append((await client.create_task(request=request, timeout=60.0)).name)
                except AlreadyExists:
                    names.append(task["name"])
                except (GoogleAPICallError, RetryError):
                    assert "name" in task, "a task without a name is made once, or the server failed"
                    waiting.append(task)
                    await asyncio.sleep(0.05)

        await asyncio.gather(*(create() for _ in range(AT_A_TIME)))
    return names


def _settled(service: Service, target: Target, queue: str, names: list[str], killed: int) -> Delivered:
    wanted = {name.rpartition("/")[2] for name in names}
    eventually(lambda: service.is_empty(queue), "the queue is empty", 300)
    found = Counter(arrival.task for arrival in target.arrivals)
    return Delivered(len(names), len(wanted & found.keys()), found.total() - len(found), killed)


def _duration(seconds: float) -> Duration:
    return Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))


# --- by hand ------------------------------------------------------------------------------------------------------


def _measures(seconds: float, tasks: int) -> dict[str, Callable[[Service, Target], object]]:
    return {
        "rate 10/s": lambda service, target: rate(service, target, per_second=10, seconds=seconds),
        "rate 100/s": lambda service, target: rate(service, target, per_second=100, seconds=seconds),
        "rate 500/s": lambda service, target: rate(service, target, per_second=500, seconds=seconds),
        "20 at a time": lambda service, target: concurrency(service, target, limit=20, seconds=seconds, each=0.5),
        "delays": lambda service, target: [
            round(late, 4) for late in delays(service, target, lo=0.5, hi=8.0, doublings=2, attempts=12)
        ],
        "delivery": lambda service, target: delivery(service, target, tasks=tasks),
        "kills": lambda service, target: kills(service, target, tasks=tasks, every=3.0),
    }


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--store", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--only", default="", help="measures whose names contain this")
    chosen = parser.parse_args()
    with running(chosen.store) as service, serving() as target:
        for name, measure in _measures(chosen.seconds, chosen.tasks).items():
            if chosen.only in name:
                print(f"{name}: {measure(service, target)}", flush=True)


if __name__ == "__main__":
    _main()
