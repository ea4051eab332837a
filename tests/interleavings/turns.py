"""Two transactions on Postgres, statement by statement, in every order that is asked for.

Each connection has a gate in front of the server: a statement waits there until it is its turn. A statement that the
server keeps waiting for a lock does not hold up the other one, and goes on when the lock is free.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import asyncpg

from tests.interleavings.effects import Effect, effect_of, table_of
from tests.interleavings.orders import Order, Side, Statement

LOOK_SECONDS: Final = 0.002
"""How long a statement runs before it is looked whether it waits for a lock."""
LOOK_AGAIN_SECONDS: Final = 0.0005
"""As ``LOOK_SECONDS``, for one that waited when it was last looked: if it may go on, the server has let it."""
STUCK_SECONDS: Final = 60.0
"""After which two transactions that wait for each other were not told apart by the server."""
_OF_TYPES: Final = re.compile(r"\btypeinfo_tree\b|\bset_config\('jit'")


class Gate:
    """Where the statements of one side wait for their turn. Open, it lets them pass."""

    def __init__(self) -> None:
        self.is_open = True
        self.pid = 0
        """Of the server's process to which the last statement went."""
        self.arrived = asyncio.Event()
        self.statement = Statement("", Effect())
        """That waits, or went last."""
        self.written: set[str] = set()
        """Tables that may have been."""
        self._turn: asyncio.Future[None] | None = None

    async def wait(self, statement: Statement) -> None:
        """Return when the statement may be sent."""
        if self.is_open:
            return
        self.statement = statement
        self._turn = asyncio.get_running_loop().create_future()
        self.arrived.set()
        await self._turn

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
        self._held = Effect()
        """What the open transaction has done."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._protocol, name)

    async def _wait(self, statement: str, arguments: Sequence[Any] = ()) -> None:
        is_in_transaction = self._protocol.is_in_transaction()
        effect = effect_of(statement, arguments, self._held if is_in_transaction else None)
        await self._gate.wait(Statement(statement, effect))
        self._held = self._held.beside(effect)
        self._gate.written.update(map(table_of, effect.writes))
        self._gate.pid = self._protocol.get_server_pid()

    async def prepare(self, *given: Any, **named: Any) -> Any:
        # To be understood, a statement may have to wait for tables that are just made.
        self._gate.pid = self._protocol.get_server_pid()
        return await self._protocol.prepare(*given, **named)

    async def query(self, query: str, timeout: float | None) -> Any:  # noqa: ASYNC109 - as the driver calls it
        # What begins a transaction takes no lock and sees nothing, so it goes with the statement after it.
        if query.startswith("BEGIN"):
            self._held = Effect()
        else:
            await self._wait(query)
        return await self._protocol.query(query, timeout)

    async def bind_execute(self, state: Any, args: Sequence[Any], *given: Any, **named: Any) -> Any:
        # What a connection asks about types, when it first needs them, goes with the statement after it as well.
        if _OF_TYPES.search(state.query) is None:
            await self._wait(state.query, args)
        return await self._protocol.bind_execute(state, args, *given, **named)

    async def bind_execute_many(self, state: Any, *given: Any, **named: Any) -> Any:
        await self._wait(state.query)
        return await self._protocol.bind_execute_many(state, *given, **named)


class Referee:
    """Lets the statements of two sides go in a given order."""

    def __init__(self, observer: asyncpg.Connection) -> None:
        """Make a referee that sees by *observer* who waits for whom."""
        self._observer = observer
        self.gates = (Gate(), Gate())

    async def carry_out(
        self, sides: Sequence[Callable[[], Awaitable[None]]], beginning: Sequence[Side], *, goes_on: bool = True
    ) -> Order:
        """Carry out both; see ``Order`` for what comes after the *beginning*."""
        order = Order(goes_on)
        for gate in self.gates:
            gate.is_open = False
            gate.arrived.clear()
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

    def written(self) -> set[str]:
        """Return the tables that may have been written since this was asked before."""
        found = self.gates[0].written | self.gates[1].written
        for gate in self.gates:
            gate.written.clear()
        return found

    async def _take_turns(
        self, tasks: Sequence["asyncio.Future[None]"], order: Order, beginning: Sequence[Side]
    ) -> None:
        blocked: set[Side] = set()
        for side in (0, 1):
            await self._settle(side, tasks[side])
        while not all(task.done() for task in tasks):
            for side in list(blocked):
                if await self._settle(side, tasks[side], LOOK_AGAIN_SECONDS):
                    blocked.discard(side)
            could = tuple(side for side in (0, 1) if self.gates[side].arrived.is_set())
            if not could:
                await asyncio.sleep(LOOK_SECONDS)  # both wait for locks: the server finds out that it is a deadlock
                continue
            chosen = order.choose(could, [gate.statement for gate in self.gates], beginning)
            self.gates[chosen].release()
            if not await self._settle(chosen, tasks[chosen]):
                blocked.add(chosen)
                order.note_wait()

    async def _settle(self, side: Side, task: "asyncio.Future[Any]", seconds: float = LOOK_SECONDS) -> bool:
        """Wait until a side is at its gate or at its end; return false if it waits for a lock of the other one."""
        gate = self.gates[side]
        arriving: asyncio.Future[Any] = asyncio.ensure_future(gate.arrived.wait())
        try:
            while True:
                await asyncio.wait({arriving, task}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                if arriving.done() or task.done():
                    return True
                if await self._observer.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", gate.pid):
                    return False
        finally:
            arriving.cancel()
