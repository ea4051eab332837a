"""Several engines in one process on one store, of which each beats when a test says so; and targets a test holds."""

import asyncio
import sqlite3
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import asyncpg

from hopline_engine import clock
from hopline_engine.blobs.blobs import Blobs
from hopline_engine.clock import DatabaseClock, SystemClock
from hopline_engine.core.live import LiveTask
from hopline_engine.core.model import RunState
from hopline_engine.core.shards import SHARDS
from hopline_engine.queue.dispatcher import Dispatcher
from hopline_engine.queue.outcomes import Outcome, Succeeded, Unserved
from hopline_engine.queue.secrets import Secrets
from hopline_engine.queue.signing import Signer
from hopline_engine.queue.workers import Worker
from hopline_engine.scheduler.engine import Engine
from hopline_engine.settings import Settings
from hopline_engine.store import runs, steps
from hopline_engine.store.interface import Store
from hopline_engine.store.postgres.store import open_store as open_postgres
from hopline_engine.store.runs import RunRecord
from hopline_engine.store.sqlite import open_store
from tests.core.worlds import definition, http_step
from tests.support.postgres import database
from tests.support.waiting import until, until_seen

LONG = 1000.0
"""Seconds that nothing in a test lasts: a node that was silent for longer was made so by the test."""


class Sent(NamedTuple):
    """One attempt."""

    node: str
    run: int
    step: str
    attempt: int
    at: float


class Targets:
    """What all engines of a test call: answers 1, to steps called ``held`` only when told to."""

    def __init__(self) -> None:
        self.out: dict[tuple[int, str], list[str]] = defaultdict(list)
        """The nodes that wait for an answer now, by run and step."""
        self.most = 0
        """How many answers were waited for at a time."""
        self.most_of: Counter[str] = Counter()
        """The same by step."""
        self.sent: list[Sent] = []
        """All that was called."""
        self.twice: list[tuple[int, str]] = []
        """Steps that two nodes executed at the same time."""
        self.open = asyncio.Event()
        self.seconds = 0.0
        """How long an answer takes."""
        self.refusals = 0
        """How many attempts from now on turn out to have reached nobody."""

    async def answer(self, node: str, task: LiveTask) -> Outcome:
        place = (task.run.id, task.name)
        out = self.out[place]
        out.append(node)
        if len(out) > 1:
            self.twice.append(place)
        self.sent.append(Sent(node, task.run.id, task.name, task.attempt, clock.now()))
        self.most = max(self.most, self.in_flight)
        of_step = sum(len(out) for (_, step), out in self.out.items() if step == task.name)
        self.most_of[task.name] = max(self.most_of[task.name], of_step)
        try:
            if task.node.id == "held":
                await self.open.wait()
            else:
                await asyncio.sleep(self.seconds)
        finally:
            out.remove(node)
        if self.refusals:
            self.refusals -= 1
            return Unserved("a test says so")
        return Succeeded(b"1", 200)

    @property
    def in_flight(self) -> int:
        return sum(map(len, self.out.values()))

    def of(self, node: "Node") -> int:
        """Return how many answers a node waits for."""
        return sum(out.count(node.id) for out in self.out.values())


class Calling:
    """The dispatcher of one engine."""

    def __init__(self, node: str, targets: Targets) -> None:
        self._node = node
        self._targets = targets
        self.secrets = Secrets({})
        self.blobs = Blobs(None, SystemClock(), inline_bytes=1)

    async def execute(self, task: LiveTask, worker: Worker | None) -> Outcome:
        return await self._targets.answer(self._node, task)


class Skewed(SystemClock):
    """The clock of a machine that is wrong by some seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def now(self) -> float:
        return super().now() + self._seconds


class Node:
    """One engine."""

    def __init__(self, store: Store, targets: Targets, settings: Settings, skew: float) -> None:
        self.store = store
        self.id = store.owner.node
        self.engine = Engine(
            store=store,
            dispatcher=cast("Dispatcher", Calling(self.id, targets)),
            signer=Signer(b"key"),
            clock=DatabaseClock(Skewed(skew)),
            settings=settings,
        )

    @property
    def held(self) -> frozenset[int]:
        return self.engine.membership.held

    async def beat(self) -> None:
        await self.engine.membership.beat()
        await self.engine.membership.moved()

    async def define(self, *names: str, queue: dict[str, Any] | None = None, then: str | None = None) -> None:
        """Register a workflow for each name: a step that is called like it and waits in a queue, then another one."""
        given = []
        for name in names:
            node = http_step(name, "http://x")
            if queue is not None:
                node["policy"]["queue"] = queue["name"]
            after = [] if then is None else [{**http_step(then, "http://x"), "after": [name]}]
            given.append({**definition(name, [node, *after]), "queues": [] if queue is None else [queue]})
        await self.engine.controls.register(given, names)

    async def start(self, name: str, count: int = 1) -> list[RunRecord]:
        started = await asyncio.gather(*(self.engine.start_run(name, {}, None) for _ in range(count)))
        return [each.run for each in started]

    async def ended(self, started: Iterable[RunRecord]) -> list[RunState]:
        """Return how runs ended, wherever they were worked on."""

        async def end(run: RunRecord) -> RunState | None:
            stored = await self.store.read(lambda connection: runs.get(connection, run.id))
            assert stored is not None
            return None if stored.state is RunState.RUNNING else stored.state

        return [await until_seen(partial(end, run), f"run {run.public_id} ends") for run in started]

    async def attempts(self, run: RunRecord) -> list[str]:
        """Return how the attempts of a run ended."""
        found = await self.store.read(lambda connection: steps.attempts(connection, run.id, limit=100))
        return [attempt.state for attempt in found]


class Nodes:
    """A store, and the engines on it."""

    def __init__(self, where: Path | str, stack: AsyncExitStack) -> None:
        self.targets = Targets()
        self._where = where
        self._stack = stack
        self._count = 0

    @property
    def is_sqlite(self) -> bool:
        return isinstance(self._where, Path)

    async def join(self, skew: float = 0.0, **settings: Any) -> Node:
        """Add an engine on a machine whose clock is wrong by *skew*; it holds no shard before it beats."""
        self._count += 1
        node = await self._opened(f"n_{self._count}")
        opened = Node(node, self.targets, Settings(node_silence_seconds=LONG, drain_seconds=LONG, **settings), skew)
        self._stack.push_async_callback(node.close)
        self._stack.push_async_callback(opened.engine.close)
        await opened.engine.open()
        opened.engine.coordinator.sending.is_on = True
        opened.engine.membership.url = f"http://{opened.id}"
        opened.engine.membership.takes_shards = True
        return opened

    async def joined(self, count: int) -> list[Node]:
        """Add engines and let them share the shards."""
        nodes = [await self.join() for _ in range(count)]
        for _ in range(3):
            for node in nodes:
                await node.beat()
        assert sum(len(node.held) for node in nodes) == SHARDS
        return nodes

    async def silence(self, node: Node) -> None:
        """Let a node have been silent for too long."""
        await self.write(f"UPDATE node SET heartbeat_at = heartbeat_at - {2 * LONG} WHERE id = '{node.id}'")

    async def write(self, statement: str) -> None:
        """Execute a statement past the engines."""
        if isinstance(self._where, Path):
            with closing(sqlite3.connect(self._where, isolation_level=None, timeout=10)) as raw:
                raw.execute(statement)
            return
        connection = await asyncpg.connect(self._where)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def _opened(self, node: str) -> Store:
        if isinstance(self._where, Path):
            return await open_store(self._where, node=node, clock=clock.now, alone=False)
        return await open_postgres(self._where, node=node, random=SystemClock().random)


@asynccontextmanager
async def several_nodes(database_of: str, folder: Path) -> AsyncIterator[Nodes]:
    """Yield a store of a kind on which engines may be opened; they are closed at the end."""
    async with AsyncExitStack() as stack:
        where = folder / "hopline.db" if database_of == "sqlite" else await stack.enter_async_context(database())
        nodes = Nodes(where, await stack.enter_async_context(AsyncExitStack()))
        try:
            yield nodes
        finally:
            nodes.targets.open.set()


async def in_flight(targets: Targets, count: int) -> None:
    """Return when so many answers are waited for."""
    await until(lambda: targets.in_flight == count, f"{count} tasks are in flight")
