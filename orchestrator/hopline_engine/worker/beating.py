"""Heartbeats of steps that run: the engine is told that one goes on, and says for how long, or that it need not.

A step may say so in any thread and as often as it likes; about one a second of each attempt is passed on.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final, Protocol

import msgspec

from hopline import Context
from hopline_engine.worker.exchange import Exchange, NoAnswerError

LONGEST_REST_SECONDS: Final = 1.0
LONGEST_PROGRESS: Final = 1000
"""Characters that the engine takes."""
_CALLBACKS: Final = "/callbacks/"
_OVER: Final = frozenset({HTTPStatus.CONFLICT, HTTPStatus.GONE})


class Line(Protocol):
    """The way to the engine."""

    async def tell(self, context: Context, report: dict[str, Any], /) -> datetime | None:
        """Pass a heartbeat on; return until when the attempt may last now, or ``None`` if nobody waits for it.

        Raises:
            NoAnswerError: the engine did not take it.
        """
        ...


class Beating(Protocol):
    """An attempt whose heartbeats are passed on."""

    def extend(self, deadline: datetime, /) -> None:
        """Let it last longer."""
        ...

    def leave(self) -> None:
        """Tell the step that nobody waits for it any more."""
        ...


class Beats:
    """The heartbeats of one attempt."""

    __slots__ = (
        *("_attempt", "_context", "_is_called", "_is_due", "_is_over", "_line", "_loop", "_progress", "_seconds"),
        "_telling",
    )

    def __init__(
        self, attempt: Beating, context: Context, seconds: float, line: Line, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Begin; each heartbeat asks for *seconds* from then on."""
        self._attempt = attempt
        self._context = context
        self._seconds = seconds
        self._line = line
        self._loop = loop
        self._progress: str | None = None
        self._is_due = False
        self._is_called = False
        """Whether the loop will look for what is due."""
        self._is_over = False
        self._telling: asyncio.Task[None] | None = None

    def beat(self, progress: str | None) -> None:
        """Note that the step goes on; in any thread."""
        if progress is not None:
            self._progress = progress[:LONGEST_PROGRESS].encode("utf-8", "replace").decode()
        self._is_due = True
        if not self._is_called:
            self._is_called = True
            with contextlib.suppress(RuntimeError):  # a thread that outlives the worker's loop
                self._loop.call_soon_threadsafe(self._go)

    def stop(self) -> None:
        """Pass nothing more on: the attempt is over."""
        self._is_over = True
        if self._telling is not None:
            self._telling.cancel()

    def _go(self) -> None:
        if not self._is_over and (self._telling is None or self._telling.done()):
            self._telling = self._loop.create_task(self._tell())

    async def _tell(self) -> None:
        while self._takes_up():
            try:
                until = await self._line.tell(self._context, self._report())
            except NoAnswerError:
                self._is_due = True
            else:
                if until is None:
                    self._attempt.leave()
                    return
                self._attempt.extend(until)
            await asyncio.sleep(min(LONGEST_REST_SECONDS, self._seconds / 4))

    def _takes_up(self) -> bool:
        """Return whether something is due; if not, the next heartbeat calls the loop."""
        self._is_called = False  # before it is looked at what is due: another thread may be in ``beat`` now
        is_due, self._is_due = self._is_due, False
        if is_due:
            self._is_called = True
        return is_due

    def _report(self) -> dict[str, Any]:
        report: dict[str, Any] = {"heartbeat": self._seconds}
        return report if self._progress is None else {**report, "progress": self._progress}


class _Done(msgspec.Struct, frozen=True):
    """What a node answers to a heartbeat."""

    until: datetime


class Nodes:
    """The line to whichever of the engine's nodes answers; to be used on one running loop."""

    def __init__(self, addresses: Callable[[], Sequence[str]]) -> None:
        self._addresses = addresses
        self._exchanges: dict[str, Exchange] = {}

    async def tell(self, context: Context, report: dict[str, Any]) -> datetime | None:
        """Pass a heartbeat on; see ``Line``."""
        assert context.callback_url is not None
        # The public name in it is how others reach the engine; a worker reaches its nodes as it is registered there.
        path = context.callback_url[context.callback_url.index(_CALLBACKS) :]
        headers = {"Content-Type": "application/json", "Hopline-Callback-Token": context.callback_token or ""}
        trouble = "no node is known"
        for address in self._addresses():
            try:
                reply = await self._to(address).ask("POST", path, msgspec.json.encode(report), headers)
            except NoAnswerError as error:
                trouble = str(error)
                continue
            if reply.status in _OVER:
                return None
            if reply.status == HTTPStatus.OK:
                return msgspec.json.decode(reply.body, type=_Done).until
            trouble = f"it answered {reply.status}"
        raise NoAnswerError(trouble)

    def _to(self, address: str) -> Exchange:
        exchange = self._exchanges.get(address)
        if exchange is None:
            exchange = self._exchanges[address] = Exchange(f"{address.rstrip('/')}/api/v1", {})
        return exchange
