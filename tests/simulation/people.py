"""Those around the engine: workers, the target of HTTP steps, and what both do when a step is called."""

import asyncio
import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hopline_engine.core.model import WHOLE
from hopline_engine.core.names import parse_step_name
from hopline_engine.queue.connection import RawAnswer
from tests.core.rows import Place
from tests.simulation.batches import elements_of, is_batch
from tests.simulation.flows import STEPS
from tests.simulation.kinds import SIGNATURE, answer_of
from tests.simulation.loop import Process
from tests.simulation.network import Host, Request, json_answer

if TYPE_CHECKING:
    from tests.simulation.world import World

Key = tuple[Place, int]
"""An attempt of a step run."""


class Conducts:
    """What steps do, and a book of what they did."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.executions: Counter[Key] = Counter()
        self.said: dict[Key, set[str]] = {}
        """How each attempt ended as far as those know who executed it: ``succeeded``, ``failed``, ``accepted``."""
        self.disturbed: set[Key] = set()
        """Attempts whose messages were touched by a fault."""

    async def execute(self, request: Request) -> tuple[str, Any]:
        """Execute a step; return what to say and its value."""
        world = self._world
        public, step, attempt = about(request)
        place = world.ledger.place(public, step)
        key = (place, attempt)
        self.executions[key] += 1
        world.sensors.begin(place, attempt)
        await asyncio.sleep(world.random.expovariate(1 / 0.2))
        if world.hits(world.faults.slow) or world.heartbeats.takes_long(key):
            self.disturbed.add(key)
            await world.heartbeats.pass_time(request, world.random.uniform(2, 30))
        node, item = parse_step_name(step)
        workflow = world.ledger.rows.runs[place[0]].workflow
        if world.sensors.finds_nothing(workflow, place, attempt):
            self.executions -= Counter([key])  # the next look is of the same attempt
            return "succeeded", None
        conduct = world.flow_of(workflow).conduct(workflow, node)
        is_bad = conduct.bad_element is None or conduct.bad_element == (item if item != WHOLE else None)
        said: str = "succeeded"
        value: Any = answer_of(world.flow_of(workflow), workflow, node, json.loads(request.body or b"{}"))
        if is_bad and attempt <= conduct.fails:
            said, value = "failed", f"attempt {attempt}"
        if conduct.accepts:
            world.loop.spawn(None, self._call_back(request, key, said, value))
            return "accepted", None
        self.note(key, said)
        return said, value

    def note(self, key: Key, said: str) -> None:
        self.said.setdefault(key, set()).add(said)

    async def _call_back(self, request: Request, key: Key, said: str, value: Any) -> None:
        """Report how accepted work ended, until there is a final answer to it."""
        world, faults = self._world, self._world.faults
        if world.hits(faults.callback_lost):
            self.disturbed.add(key)
            return
        await asyncio.sleep(world.random.choice((0.0, world.random.expovariate(1 / 0.5))))
        if world.hits(faults.callback_late):
            self.disturbed.add(key)
            await world.heartbeats.pass_time(request, world.random.uniform(5, 60))
        self.note(key, said)
        # Of a type that the policy of an HTTP step tries again, too.
        report = {"result": value} if said == "succeeded" else {"error": {"type": "ConnectionError", "message": value}}
        if world.hits(faults.callback_forged):
            await self._forge(request, report)
        times = 2 if world.hits(faults.callback_doubled) else 1
        for _ in range(times):
            world.loop.spawn(None, self._report(request, report))
            if world.random.random() < 0.5:
                await asyncio.sleep(world.random.uniform(0, 3))

    async def _report(self, request: Request, report: Mapping[str, Any]) -> None:
        for _ in range(60):
            answer = await self._world.ask_url(
                request.headers[b"hopline-callback-url"].decode(),
                report,
                {b"hopline-callback-token": request.headers[b"hopline-callback-token"]},
            )
            if answer is not None and answer.status < 500:
                return
            await asyncio.sleep(self._world.random.uniform(0.5, 1.5))

    async def _forge(self, request: Request, report: Mapping[str, Any]) -> None:
        """Call back with a token that is not that of the attempt: a wrong one, or that of another attempt."""
        url, token = request.headers[b"hopline-callback-url"].decode(), request.headers[b"hopline-callback-token"]
        if self._world.random.random() < 0.5:
            token = bytes(reversed(token))
        else:
            before, _, rest = url.partition("/callbacks/")
            run, attempt, step = rest.split("/")
            url = f"{before}/callbacks/{run}/{int(attempt) + 1}/{step}"
        answer = await self._world.ask_url(url, report, {b"hopline-callback-token": token})
        if answer is not None and answer.status not in {401, 503}:
            self._world.violated(f"a forged callback to {url} was answered {answer}")


class ServiceHost(Host):
    """The target of all HTTP steps."""

    def __init__(self, world: "World") -> None:
        super().__init__(None)
        self._world = world

    async def serve(self, request: Request) -> RawAnswer:
        world = self._world
        if world.hits(world.faults.answer_bad):
            world.note_fault(request)
            return json_answer(world.random.choice((500, 503, 429)), "out of order")
        said, value = await world.conducts.execute(request)
        match said:
            case "accepted":
                return RawAnswer(202, [], b"")
            case "failed":
                return json_answer(500, value)
        return json_answer(200, value)


class WorkerHost(Host):
    """A worker: it registers, shows that it is alive, and executes Python steps."""

    def __init__(self, world: "World", name: str, port: int) -> None:
        super().__init__(Process(name))
        self._world = world
        self.name = name
        self.netloc = f"127.0.0.1:{port}"
        self.concurrency = world.random.choice((1, 2, 4, 8))
        self.is_silent = False
        self.running: Counter[str] = Counter()

    async def live(self) -> None:
        """Register with every node, and again when one does not know it; then show signs of life."""
        while True:
            if not self.is_silent:
                for node in self._world.listening():
                    answer = await self._world.ask(node.slot, "POST", f"/workers/{self.name}/heartbeat")
                    if answer is not None and answer.status == 404:
                        await self._world.ask(node.slot, "PUT", f"/workers/{self.name}", self._registration())
            await asyncio.sleep(self._world.random.uniform(2.5, 3.5))

    def _registration(self) -> dict[str, Any]:
        return {
            "url": f"http://{self.netloc}",
            "token": "t",
            "concurrency": math.ceil(self.concurrency / max(1, len(self._world.listening()))),
            "steps": [{"name": prefix + name, "signature": SIGNATURE} for prefix in ("", "undo_") for name in STEPS],
        }

    async def serve(self, request: Request) -> RawAnswer:
        world = self._world
        if request.headers.get(b"authorization") != b"Bearer t":
            world.violated(f"{request} does not show the worker's token")
        if world.hits(world.faults.answer_bad):
            world.note_fault(request)
            return json_answer(503, "stopping")
        if not is_batch(request):
            return json_answer(*await self._execute(request))
        answers: list[dict[str, Any]] = []
        for element in elements_of(request):
            if answers and world.hits(world.faults.answer_bad):
                break  # those that are left are sent once more
            status, answer = await self._execute(element)
            answers.append({"status": status, "answer": answer})
        return json_answer(200, answers)

    async def _execute(self, request: Request) -> tuple[int, dict[str, Any]]:
        said, value = await self._world.conducts.execute(request)
        match said:
            case "accepted":
                return 202, {}
            case "failed":
                return 200, {"error": {"type": "ValueError", "message": value, "types": ["ValueError"]}}
        return 200, {"result": value}


def about(request: Request) -> tuple[str, str, int]:
    """Return the run, step and attempt that a request is about."""
    headers = request.headers
    return headers[b"hopline-run"].decode(), headers[b"hopline-step"].decode(), int(headers[b"hopline-attempt"])
