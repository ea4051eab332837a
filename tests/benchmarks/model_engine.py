"""The least that does the work of an engine durably: how fast the engine itself could be on this machine.

    python tests/benchmarks/model_engine.py handler
    python tests/benchmarks/model_engine.py engine HANDLER FILE

A run is a list of widths, one for each stage: ``[1, 1, 1]`` are three steps in a row, ``[1, 1000, 1]`` are a map
between two steps. Each step is one HTTP request to the handler, which is another process, and what follows from its
answer is in one durable commit of its result, the end of its task and the tasks that come next, before any of these is
sent. Commits are made in groups by a thread. And that is all: nothing is compiled, checked, authenticated, retried,
limited, logged or taken up again.

``POST /`` starts a run and is answered after its commit; ``GET /`` is answered when no run is open, with what became of
those since the last one (``Ended``). Each role prints its address as its first line.
"""

import asyncio
import json
import sqlite3
import statistics
import sys
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # a script finds only what lies beside it

from hopline_engine import event_loop

IN_FLIGHT = 64
"""Requests to the handler at a time, each on a connection of its own."""

_SCHEMA = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE run (id INTEGER PRIMARY KEY, widths TEXT NOT NULL, began REAL NOT NULL);
CREATE TABLE step (run INTEGER, number INTEGER, result REAL, began REAL, ended REAL, PRIMARY KEY (run, number));
CREATE TABLE task (run INTEGER, number INTEGER, due REAL NOT NULL, PRIMARY KEY (run, number)) WITHOUT ROWID;
"""
_ADD_RUN = "INSERT INTO run VALUES (?, ?, ?)"
_ADD_STEP = "INSERT INTO step VALUES (?, ?, ?, ?, ?)"
_ADD_TASK = "INSERT INTO task VALUES (?, ?, ?)"
_REMOVE_TASK = "DELETE FROM task WHERE run = ? AND number = ?"

Got = Callable[["Messages", bytes, bytes], None]
"""Is called with each message: where it came from, its head and its body."""
Row = tuple[str, tuple[object, ...]]
"""A statement and the values for it."""


class Messages(asyncio.Protocol):
    """A connection on which both sides say how long their bodies are."""

    def __init__(self, got: Got) -> None:
        self._got = got
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (head := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = int(self._buffer[:head].rpartition(b"content-length: ")[2])
            end = head + 4 + length
            if len(self._buffer) < end:
                return
            message, self._buffer = self._buffer[:end], self._buffer[end:]
            self._got(self, message[:head], message[head + 4 :])

    def send(self, first_line: bytes, body: bytes) -> None:
        """Send a message."""
        self._transport.write(
            b"%b\r\nhost: model\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (first_line, len(body), body)
        )


@dataclass(slots=True)
class Changes:
    """What is written in one commit, and what is to be done when it is durable."""

    rows: defaultdict[str, list[tuple[object, ...]]] = field(default_factory=lambda: defaultdict(list))
    then: list[Callable[[], None]] = field(default_factory=list)


class Committer:
    """Writes in groups: what is handed over while it writes is the next one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._next = Changes()
        self._groups: SimpleQueue[Changes] = SimpleQueue()
        self._busy = False
        Thread(target=self._write, daemon=True).start()

    def commit(self, then: Callable[[], None], *rows: Row) -> None:
        """Have rows written, and call *then* once they are durable."""
        for statement, values in rows:
            self._next.rows[statement].append(values)
        self._next.then.append(then)
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._begin)  # with all that is decided before

    def _begin(self) -> None:
        self._groups.put(self._next)
        self._next = Changes()

    def _written(self, group: Changes) -> None:
        for then in group.then:
            then()
        self._busy = bool(self._next.then)
        if self._busy:
            self._begin()

    def _write(self) -> None:
        database = sqlite3.connect(self._path, isolation_level=None)
        database.executescript(_SCHEMA)
        while True:
            group = self._groups.get()
            database.execute("BEGIN IMMEDIATE")
            for statement, rows in group.rows.items():
                database.executemany(statement, rows)
            database.execute("COMMIT")
            self._loop.call_soon_threadsafe(self._written, group)


@dataclass(slots=True, kw_only=True)
class Run:
    """A run that is open."""

    id: int
    widths: Sequence[int]
    stage: int = 0
    first: int = 0
    """Number of the first step of its stage."""
    left: int
    """Steps of its stage that have not ended."""
    sent: list[float] = field(default_factory=list)
    """When its first step of each stage was sent."""


@dataclass(slots=True)
class Ended:
    """What became of the runs that ended."""

    began: float = 0.0
    ended: float = 0.0
    hops: list[float] = field(default_factory=list)
    """Of each run the median of the seconds between the stages."""
    results: dict[int, float] = field(default_factory=dict)
    """Of each run that of its last step, which is the Unix time at which it began."""


class Engine:
    """Decides in memory, and sends what is durable."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self._runs: dict[int, Run] = {}
        self._number = 0
        self._ended = Ended()
        self._asking: Messages | None = None
        self._idle: list[Messages] = []
        self._due: deque[tuple[Run, int]] = deque()
        self._sent: dict[Messages, tuple[Run, int, float]] = {}

    async def connect(self, host: str, port: int) -> None:
        """Open the connections to the handler."""
        loop = asyncio.get_running_loop()
        for _ in range(IN_FLIGHT):
            _, connection = await loop.create_connection(partial(Messages, self._answered), host, port)
            self._idle.append(connection)

    def asked(self, connection: Messages, head: bytes, body: bytes) -> None:
        """Start a run, or tell of those that ended once all have."""
        if head.startswith(b"GET"):
            self._asking = connection
            self._tell()
            return
        self._number += 1
        widths, now = json.loads(body), time.time()
        run = Run(id=self._number, widths=widths, left=widths[0])
        self._runs[run.id] = run
        self._ended.began = self._ended.began or now
        self._committer.commit(
            partial(self._started, connection, run), (_ADD_RUN, (run.id, body.decode(), now)), *_tasks(run, now)
        )

    def _started(self, connection: Messages, run: Run) -> None:
        connection.send(b"HTTP/1.1 201 Created", b'{"id":%d}' % run.id)
        self._send_stage(run)

    def _send_stage(self, run: Run) -> None:
        run.sent.append(time.time())
        self._due.extend((run, run.first + each) for each in range(run.widths[run.stage]))
        self._send()

    def _send(self) -> None:
        while self._due and self._idle:
            run, number = self._due.popleft()
            connection = self._idle.pop()
            self._sent[connection] = (run, number, time.time())
            connection.send(b"POST /steps/noop HTTP/1.1", b'{"run":%d,"step":%d,"input":0}' % (run.id, number))

    def _answered(self, connection: Messages, head: bytes, body: bytes) -> None:
        assert head.startswith(b"HTTP/1.1 200"), head
        run, number, began = self._sent.pop(connection)
        self._idle.append(connection)
        self._send()
        now, result = time.time(), float(body)
        rows: list[Row] = [(_ADD_STEP, (run.id, number, result, began, now)), (_REMOVE_TASK, (run.id, number))]
        run.left -= 1
        if run.left:
            self._committer.commit(lambda: None, *rows)
            return
        run.first += run.widths[run.stage]
        run.stage += 1
        if run.stage == len(run.widths):
            self._committer.commit(partial(self._over, run, now, result), *rows)
            return
        run.left = run.widths[run.stage]
        self._committer.commit(partial(self._send_stage, run), *rows, *_tasks(run, now))

    def _over(self, run: Run, now: float, result: float) -> None:
        del self._runs[run.id]
        self._ended.ended = now
        hops = [after - before for before, after in pairwise(run.sent)]
        if hops:
            self._ended.hops.append(statistics.median(hops))
        self._ended.results[run.id] = result
        self._tell()

    def _tell(self) -> None:
        if self._asking is None or self._runs:
            return
        ended, self._ended = self._ended, Ended()
        told = {"seconds": ended.ended - ended.began, "hops": ended.hops, "results": ended.results}
        self._asking.send(b"HTTP/1.1 200 OK", json.dumps(told).encode())
        self._asking = None


def _tasks(run: Run, now: float) -> list[Row]:
    return [(_ADD_TASK, (run.id, run.first + each, now)) for each in range(run.widths[run.stage])]


async def _serve(got: Got) -> None:
    server = await asyncio.get_running_loop().create_server(partial(Messages, got), "127.0.0.1", 0, backlog=2048)
    host, port = server.sockets[0].getsockname()
    print(f"http://{host}:{port}/", flush=True)
    await server.serve_forever()


async def engine(handler: str, file: Path) -> None:
    """Serve as the engine."""
    made = Engine(Committer(file))
    host, _, port = handler.removeprefix("http://").rstrip("/").partition(":")
    await made.connect(host, int(port))
    await _serve(made.asked)


def _handled(connection: Messages, head: bytes, body: bytes) -> None:
    connection.send(b"HTTP/1.1 200 OK", repr(time.time()).encode())


def main() -> None:
    """Serve in the role that is asked for."""
    role, *given = sys.argv[1:]
    event_loop.run(_serve(_handled) if role == "handler" else engine(given[0], Path(given[1])))


if __name__ == "__main__":
    main()
