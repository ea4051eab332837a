"""Two transactions on Postgres, statement by statement, in every order that is asked for.

Each connection has a gate in front of the server: a statement waits there until it is its turn. A statement that the
server keeps waiting for a lock does not hold up the other one, and goes on when the lock is free.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import asyncpg

LOOK_SECONDS: Final = 0.003
"""How long a statement runs before it is looked whether it waits for a lock."""
STUCK_SECONDS: Final = 60.0
"""After which two transactions that wait for each other were not told apart by the server."""

Side = int
"""Which of the two transactions: 0 or 1."""


class ElsewhereError(Exception):
    """The same beginning led elsewhere this time: a connection knew something that it had to ask for before."""


class Gate:
    """Where the statements of one side wait for their turn. Open, it lets them pass."""

    def __init__(self) -> None:
        self.is_open = True
        self.pid = 0
        """Of the server's process to which the last statement went."""
        self.arrived = asyncio.Event()
        self._turn: asyncio.Future[None] | None = None
        self.passed: list[str] = []

    async def wait(self, statement: str) -> None:
        """Return when the statement may be sent."""
        if self.is_open:
            return
        self._turn = asyncio.get_running_loop().create_future()
        self.arrived.set()
        await self._turn
        self.passed.append(" ".join(statement.split())[:100])

    def release(self) -> None:
        """Let the statement that waits be sent."""
        assert self._turn is not None
        self.arrived.clear()
        self._turn.set_result(None)
        self._turn = None

    async def guard(self, connection: asyncpg.Connection) -> asyncpg.Connection:
        """Have the statements of a connection wait here."""
        connection._protocol = _Gated(connection._protocol, self)
        return connection


class _Gated:
    """The driver's protocol behind a gate."""

    def __init__(self, protocol: Any, gate: Gate) -> None:
        self._protocol = protocol
        self._gate = gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)

    async def _wait(self, statement: str) -> None:
        await self._gate.wait(statement)
        self._gate.pid = self._protocol.get_server_pid()

    async def prepare(self, *given: Any, **named: Any) -> Any:
        # To be understood, a statement may have to wait for tables that are just made.
        self._gate.pid = self._protocol.get_server_pid()
        return await self._protocol.prepare(*given, **named)

    async def query(self, query: str, timeout: float | None) -> Any:  # noqa: ASYNC109 - as the driver calls it
        # What begins a transaction takes no lock and sees nothing, so it goes with the statement after it.
        if not query.startswith("BEGIN"):
            await self._wait(query)
        return await self._protocol.query(query, timeout)

    async def bind_execute(self, state: Any, *given: Any, **named: Any) -> Any:
        await self._wait(state.query)
        return await self._protocol.bind_execute(state, *given, **named)


class Choice(NamedTuple):
    """A moment at which one side or both could go on."""

    could: tuple[Side, ...]
    chosen: Side
    previous: Side | None

    @property
    def is_switch(self) -> bool:
        """Whether the other side was let go although the previous one could go on."""
        return self.previous in self.could and self.chosen != self.previous


@dataclass(slots=True)
class Order:
    """An order in which two transactions were carried out."""

    choices: list[Choice] = field(default_factory=list)
    waits: int = 0
    """How often a statement had to wait for a lock."""

    @property
    def sides(self) -> str:
        """The sides in turn."""
        return "".join(str(choice.chosen) for choice in self.choices)


class Referee:
    """Lets the statements of two sides go in a given order."""

    def __init__(self, observer: asyncpg.Connection) -> None:
        """Make a referee that sees by *observer* who waits for whom."""
        self._observer = observer
        self.gates = (Gate(), Gate())

    async def carry_out(self, sides: Sequence[Callable[[], Awaitable[None]]], beginning: Sequence[Side]) -> Order:
        """Carry out both; after the *beginning*, who went last goes on as long as it can."""
        order = Order()
        for gate in self.gates:
            gate.is_open = False
            gate.arrived.clear()
            gate.passed.clear()
        tasks = [asyncio.ensure_future(side()) for side in sides]
        try:
            async with asyncio.timeout(STUCK_SECONDS):
                await self._take_turns(tasks, order, beginning)
        finally:
            for gate, task in zip(self.gates, tasks, strict=True):
                gate.is_open = True
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in tasks:
            task.result()
        return order

    async def _take_turns(
        self, tasks: Sequence["asyncio.Future[None]"], order: Order, beginning: Sequence[Side]
    ) -> None:
        blocked: set[Side] = set()
        for side in (0, 1):
            await self._settle(side, tasks[side])
        previous: Side | None = None
        while not all(task.done() for task in tasks):
            for side in list(blocked):
                if await self._settle(side, tasks[side]):
                    blocked.discard(side)
            could = tuple(side for side in (0, 1) if self.gates[side].arrived.is_set())
            if not could:
                await asyncio.sleep(LOOK_SECONDS)  # both wait for locks: the server finds out that it is a deadlock
                continue
            number = len(order.choices)
            chosen = previous if previous in could else could[0]
            if number < len(beginning):
                chosen = beginning[number]
                if chosen not in could:
                    raise ElsewhereError
            assert chosen is not None
            order.choices.append(Choice(could, chosen, previous))
            self.gates[chosen].release()
            if not await self._settle(chosen, tasks[chosen]):
                blocked.add(chosen)
                order.waits += 1
            previous = chosen

    async def _settle(self, side: Side, task: "asyncio.Future[Any]") -> bool:
        """Wait until a side is at its gate or at its end; return false if it waits for a lock of the other one."""
        gate = self.gates[side]
        arriving: asyncio.Future[Any] = asyncio.ensure_future(gate.arrived.wait())
        try:
            while True:
                await asyncio.wait({arriving, task}, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if arriving.done() or task.done():
                    return True
                if await self._observer.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", gate.pid):
                    return False
        finally:
            arriving.cancel()


def beginnings(order: Order, length: int, switches: int | None) -> Iterator[list[Side]]:
    """Yield the beginnings of the orders that differ from *order* after the first *length* turns for the first time.

    Args:
        order: one that was carried out.
        length: of the beginning that led to it.
        switches: how often at most the other side is let go although the previous one could go on; or no limit.
    """
    made = 0
    for number, choice in enumerate(order.choices):
        if number >= length and len(choice.could) == 2:
            other = Choice(choice.could, 1 - choice.chosen, choice.previous)
            if switches is None or made + other.is_switch <= switches:
                yield [*(one.chosen for one in order.choices[:number]), other.chosen]
        made += choice.is_switch


async def all_orders(carry_out: Callable[[Sequence[Side]], Awaitable[Order]], switches: int | None) -> int:
    """Carry out every order once, with so many *switches* at most; return how many there were."""
    pending: list[list[Side]] = [[]]
    count = 0
    while pending:
        beginning = pending.pop()
        order = await carry_out(beginning)
        count += 1
        pending += beginnings(order, len(beginning), switches)
    return count
