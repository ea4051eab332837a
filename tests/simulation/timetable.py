"""The schedules of one simulation: which there are, and what people do with them while they fire.

They are drawn from a stream of the seed of their own, so that simulations without schedules are as they would be if
there were none at all. What must come of them is in ``schedule_ledger``.
"""

import asyncio
from collections.abc import Coroutine, Iterator
from random import Random
from typing import TYPE_CHECKING, Any, Final

from hopline_engine.core.planning import build_plan
from tests.core.flows import Flow
from tests.simulation.flows import digest_of, main_of
from tests.simulation.network import Answer
from tests.simulation.schedule_ledger import SECONDS, ScheduleLedger

if TYPE_CHECKING:
    from tests.simulation.node import Node
    from tests.simulation.world import World

SHARE: Final = 0.3
"""Of the simulations that have schedules."""
DECLARED_SHARE: Final = 0.6
"""Of the workflows whose file says when they run."""
OUTAGE_SHARE: Final = 0.5
"""Of the simulations with schedules that are not calm, in which no node runs for a while."""
PEOPLE: Final = 2
MADE: Final = "by-hand"
OVERLAPS: Final = ("skip", "queue_one", "queue_all", "cancel_running", "allow")
CATCHUPS: Final = ("none", "latest", "all")
ZONES: Final = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata")
BACKFILLED_SECONDS: Final = 60.0
SETTLED_SECONDS: Final = 8.0
"""After which nothing that was due is left undecided, when nothing goes wrong any more."""


class Timetable:
    """Keeps the schedules of a simulation, and plays those who make and change them."""

    def __init__(self, world: "World", random: Random) -> None:
        self._world = world
        self._random = random
        self._flows: dict[str, Flow] = {}
        """Those whose file says when they run, by workflow."""
        self._overlaps: dict[str, str] = {}
        """Never changed, so that it is known of every tick what it should do."""
        self._is_making = random.random() < 0.7
        self.ledger = ScheduleLedger(world)

    @classmethod
    def draw(cls, world: "World") -> "Timetable | None":
        """Return the schedules of a simulation, if it has any."""
        random = Random(f"schedules {world.seed}")
        return cls(world, random) if random.random() < SHARE else None

    # --- what is drawn

    def declare(self, flow: Flow) -> None:
        """Let the file of a workflow say when it runs, perhaps; and let it ask for the time of its tick."""
        workflow = main_of(flow)
        body = flow.definitions[workflow]
        body["parameters"]["properties"]["at"] = {"type": "string", "x-hopline-scheduled": "time"}
        if self._random.random() < DECLARED_SHARE:
            self._flows[workflow] = flow
            body["schedule"] = self._draw(workflow)

    def _draw(self, name: str) -> dict[str, Any]:
        """Return what a schedule says, now or from now on."""
        random = self._random
        overlap = self._overlaps.setdefault(name, random.choice(OVERLAPS))
        policies = {"overlap": overlap, "catchup": random.choice(CATCHUPS), "jitter": random.choice((0.0, 0.0, 7.5))}
        if random.random() < 0.4:
            expression, tz = random.choice(sorted(SECONDS)), random.choice(ZONES)
            return {"kind": "cron", "expression": expression, "tz": tz, "gap": None, "fold": None, **policies}
        seconds, aligned = random.choice((10.0, 12.5, 20.0)), random.random() < 0.5
        return {"kind": "every", "seconds": seconds, "aligned": aligned, **policies}

    # --- what is played

    def acts(self, seconds: float) -> Iterator[Coroutine[Any, Any, None]]:
        """Return what happens to schedules within some seconds."""
        if self._is_making:
            yield self._make(self._random.uniform(0, seconds / 3))
        for _ in range(PEOPLE):
            yield self._change()
        if not self._world.is_calm and self._random.random() < OUTAGE_SHARE:
            yield self._lose_all_nodes(self._random.uniform(5, seconds * 0.7), self._random.uniform(20, 125))

    async def _make(self, at: float) -> None:
        await asyncio.sleep(at)
        flow = self._random.choice(self._world.flows)
        body = {"name": MADE, "workflow": main_of(flow), "schedule": self._draw(MADE)}
        answer = await self._insist("POST", "/schedules", body)
        if answer.status not in {201, 409}:  # what was lost on its way back was done all the same
            self._world.violated(f"schedule {body} is refused: {answer}")

    async def _change(self) -> None:
        random = self._random
        while True:
            await asyncio.sleep(random.uniform(1, 10))
            names = sorted(self.ledger.schedules)
            if not names:
                continue
            name = random.choice(names)
            act = random.choice((self._pause, self._edit, self._serve_again, self._trigger, self._fill))
            await act(name)

    async def _pause(self, name: str) -> None:
        await self._ask("POST", f"/schedules/{name}/pause")
        await asyncio.sleep(self._random.uniform(0, 25))
        await self._ask("POST", f"/schedules/{name}/resume")

    async def _edit(self, name: str) -> None:
        await self._ask("PATCH", f"/schedules/{name}", {"schedule": self._draw(name)})

    async def _serve_again(self, name: str) -> None:
        """Register a file that says something else of when its workflow runs."""
        flow = self._flows.get(name)
        if flow is None:
            return
        body = flow.definitions[name] | {"schedule": self._draw(name)}
        plans = self._world.ledger.plans
        digest = digest_of(body)
        plans[digest] = build_plan(body, digest, {plan.digest: plan for plan in plans.values()})  # type: ignore[arg-type]
        given = [*(each for other, each in flow.definitions.items() if other != name), body]
        await self._ask("POST", "/definitions", {"definitions": given, "current": [name]})

    async def _trigger(self, name: str) -> None:
        answer = await self._ask("POST", f"/schedules/{name}/trigger")
        run = str(answer.json()["id"])
        if self._world.ledger.run(run) is None:
            self._world.violated(f"schedule {name} was triggered, and run {run} is not durable")

    async def _fill(self, name: str) -> None:
        """Make up for the ticks of the minute before."""
        last = self._world.now()
        body = {"first": last - BACKFILLED_SECONDS, "last": last, "max_parallel": self._random.randint(1, 3)}
        answer = await self._insist("POST", f"/schedules/{name}/backfill", body)
        if answer.status not in {200, 409}:  # another one is open
            self._world.violated(f"a back-fill of {name} is refused: {answer}")

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self._insist(method, path, body)
        if answer.status >= 300:
            self._world.violated(f"{method} {path} {body} is refused: {answer}")
        return answer

    async def _insist(self, method: str, path: str, body: Any) -> Answer:
        """Ask until there is an answer, by a node that has heard of the workflow."""
        while True:
            answer = await self._world.insist(method, path, body)
            if answer.status != 404 or not self._world.is_shared:
                return answer
            await asyncio.sleep(1.0)

    async def _lose_all_nodes(self, at: float, seconds: float) -> None:
        await asyncio.sleep(at)
        self._world.loop.spawn(None, self._outage(seconds))

    async def _outage(self, seconds: float) -> None:
        """Kill all nodes, and let none start for a while."""
        world = self._world
        gone = [node for node in world.nodes.values() if node.can_be_killed and node.process.is_alive]
        for node in gone:
            world.say(f"{node.name} is killed for {seconds:.0f} s")
            world.figures.kills += 1
            node.kill()
        await asyncio.sleep(seconds)
        for node in gone:
            await self._start_again(node)

    async def _start_again(self, node: "Node") -> None:
        if self._world.nodes[node.slot] is node:
            self._world.loop.spawn(None, self._world.boot(node.slot))

    # --- the end

    async def close(self) -> None:
        """Let no schedule fire any more; what was due has been decided on before."""
        await asyncio.sleep(SETTLED_SECONDS)
        self.ledger.is_closing = True
        for name in sorted(self.ledger.schedules):
            await self._ask("POST", f"/schedules/{name}/pause")
