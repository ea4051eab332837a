"""Heartbeats of attempts that take long, and whether the engine waits for as long as it then says."""

import asyncio
from datetime import datetime
from random import Random
from typing import TYPE_CHECKING

from hopline_engine.core.model import AttemptEnded, AttemptState
from tests.core.rows import Place
from tests.simulation.network import Answer, Request

if TYPE_CHECKING:
    from tests.simulation.ledger import Write
    from tests.simulation.world import World

EVERY_SECONDS = 1.5
SECONDS = 5.0
"""For so long an attempt wants to be waited for from a heartbeat on."""
LONG = 0.15
"""Share of the attempts that take long."""


class Heartbeats:
    """Those of one simulation."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._until: dict[tuple[Place, int], float] = {}

    def takes_long(self, attempt: tuple[Place, int]) -> bool:
        """Return whether somebody works for long on an attempt here, although nothing is wrong with it."""
        has_any = "heartbeats" in self._world.kinds.names and not self._world.is_calm
        return has_any and Random(f"{attempt} {self._world.seed}").random() < LONG

    async def pass_time(self, request: Request, seconds: float) -> None:
        """Let time pass in which an attempt is worked on, and tell of it where this simulation has heartbeats."""
        left = seconds
        while left > EVERY_SECONDS and "heartbeats" in self._world.kinds.names:
            await asyncio.sleep(EVERY_SECONDS)
            left -= EVERY_SECONDS
            self._world.loop.spawn(None, self._tell(request))
        await asyncio.sleep(left)

    async def _tell(self, request: Request) -> None:
        token = {b"hopline-callback-token": request.headers[b"hopline-callback-token"]}
        await self._world.ask_url(request.headers[b"hopline-callback-url"].decode(), {"heartbeat": SECONDS}, token)

    def note(self, place: Place, attempt: int, answer: Answer) -> None:
        """Note until when an attempt is waited for at least."""
        if answer.status == 200:
            until = datetime.fromisoformat(answer.json()["until"]).timestamp()
            self._until[place, attempt] = max(until, self._until.get((place, attempt), 0.0))

    def check(self, writes: "list[Write]") -> None:
        """Check that no attempt is given up earlier, where clocks run as the loop's own."""
        if self._world.faults_drawn.clock_jumps or self._world.faults_drawn.skew:
            return
        for ended in [AttemptEnded(*row) for kind, rows in writes if kind == "attempts_ended" for row in rows]:
            place = ended.run_id, ended.node, ended.item
            until = self._until.get((place, ended.attempt), 0.0)
            if ended.state == AttemptState.TIMED_OUT and ended.ended_at < until - 0.01:
                self._world.violated(f"{self._world.ledger.name(place)} is given up before {until}: {ended}")
