"""What clients, operators and fate do in a simulation."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from hopline_engine.core.model import RunState
from tests.simulation import checks
from tests.simulation.approvals import PEOPLE
from tests.simulation.flows import EVENT, KEYS, main_of
from tests.simulation.kinds import called_from
from tests.simulation.network import Answer
from tests.simulation.world import Wanted, World

STUCK_SECONDS = 150.0
"""Longer than any wait that the settings and policies of a simulation allow."""
MOST_SECONDS = 4000.0
_READS = ("/runs", "/queues", "/workers", "/workflows", "/runs?state=failed", "/queues/default")
_READS_OF_RUNS = ("", "/why", "/logs", "/output")


class Acts:
    """Plays the parts of those who act on their own."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random
        self._playing: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Register the workflows, and let workers come."""
        world = self._world
        given = [flow.definitions[name] for flow in world.flows for name in called_from(flow, main_of(flow))]
        current = [main_of(flow) for flow in world.flows]
        answer = await world.insist("POST", "/definitions", {"definitions": given, "current": current})
        assert answer.status < 300, answer
        for number in range(self._random.randint(1, 3)):
            world.add_worker(number)

    async def until(self, seconds: float) -> None:
        """Play for some seconds."""
        world, faults = self._world, self._world.faults
        for _ in range(self._random.randint(2, 8)):
            self._play(self._client(self._random.uniform(0, seconds * 0.9)))
        self._play(self._operator())
        self._play(self._emitter(seconds))
        self._play(self._reader())
        self._play(self._inspector())
        for often, act in (
            (faults.kills, self._kill),
            (faults.holds, self._hold),
            (faults.stops, self._stop),
            (faults.worker_kills, self._kill_worker),
            (faults.worker_silences, self._silence_worker),
            (faults.full_disks, self._fill_disk),
            (faults.clock_jumps, self._jump),
        ):
            if often:
                self._play(self._now_and_then(60 / often, act))
        if world.timetable is not None:
            for playing in world.timetable.acts(seconds):
                self._play(playing)
        if world.approvals.are_there:
            for _ in range(PEOPLE):
                self._play(world.approvals.decide_now_and_then())
        await asyncio.sleep(seconds)

    async def heal(self) -> None:
        """Let nothing go wrong any more, and wait until every run has ended."""
        world = self._world
        world.say("healing")
        world.faults.heal()
        world.loop.disk.tail = 0.0
        world.is_healed = True
        for playing in self._playing:
            playing.cancel()
        await asyncio.gather(*self._playing, return_exceptions=True)
        self._playing = [world.loop.create_task(self._inspector())]
        await asyncio.sleep(20)  # who was killed is back, what was asked before was answered
        for node in world.nodes.values():
            node.machine.skew = 0.0
        await self._all_listen()
        for name in ("default", "narrow", "slow"):
            world.ledger.paused.discard(name)
            await world.insist("POST", f"/queues/{name}/resume")
        await self._end_waits()
        if not any(worker.netloc in world.hosts for worker in world.workers):
            world.add_worker(len(world.workers))
        for worker in world.workers:
            worker.is_silent = False
        if world.timetable is not None:
            await world.timetable.close()
        await self._wait_for_ends()
        for playing in self._playing:
            playing.cancel()
        await asyncio.sleep(3)  # what is left hanging would show now

    async def _end_waits(self) -> None:
        """Let everything come that somebody waits for, and everybody go on who was held back."""
        world = self._world
        for key in KEYS:
            world.ledger.asked_events.add(key)
            await world.insist("POST", "/events", {"name": EVENT, "key": key, "payload": None})
        for run in world.ledger.open_runs():
            if world.ledger.is_paused(run.id):
                await self._let_go_on(run.public_id)
        if world.approvals.are_there:
            self._play(world.approvals.decide_all())

    async def _all_listen(self) -> None:
        """Wait until every node is there."""
        world = self._world
        for _ in range(int(STUCK_SECONDS)):
            if len(world.listening()) == len(world.nodes):
                return
            await asyncio.sleep(1.0)
        world.violated("a node does not come back")

    async def _wait_for_ends(self) -> None:
        world = self._world
        began = world.loop.time()
        seen, since = -1, began
        while world.ledger.open_runs() or (world.timetable is not None and world.timetable.ledger.is_open):
            await asyncio.sleep(1.0)
            if (moved := len(world.ledger.all_leases) + len(world.ledger.rows.ended)) != seen:
                seen, since = moved, world.loop.time()
            if (
                world.loop.time() - since > STUCK_SECONDS + world.latest_jump
                or world.loop.time() - began > MOST_SECONDS
            ):
                world.violated(f"stuck: {checks.describe_open(world)}")
                await world.loop.create_future()

    def _play(self, act: Coroutine[Any, Any, None]) -> None:
        self._playing.append(self._world.loop.create_task(act))

    # --- clients

    async def _client(self, at: float) -> None:
        """Start a run; perhaps cancel it, perhaps try it again when it has failed."""
        world, random = self._world, self._random
        await asyncio.sleep(at)
        flow = random.choice(world.flows)
        workflow = main_of(flow)
        key = f"k{len(self._playing)}-{at:.6f}" if random.random() < 0.7 else None
        answer = await self._ask_once_or_insist(
            "/runs", {"workflow": workflow, "idempotency_key": key}, key is not None
        )
        if answer is None or answer.status >= 300:
            return
        wanted = Wanted(str(answer.json()["id"]), flow, workflow)
        world.wanted[wanted.run] = wanted
        if random.random() < 0.2:
            await self._hold_back(wanted)
        if random.random() < (0.7 if world.is_sluggish else 0.25):
            await asyncio.sleep(random.choice((0.0, random.uniform(0, 10))))
            await world.insist("POST", f"/runs/{wanted.run}/cancel")
        if random.random() < 0.4:
            await self._try_again(wanted)
        await world.forks.fork(wanted)

    async def _hold_back(self, wanted: Wanted) -> None:
        """Pause a run for a while."""
        world = self._world
        await asyncio.sleep(self._random.choice((0.0, self._random.uniform(0, 5))))
        if (await self._ask_once(f"/runs/{wanted.run}/pause")) is not None:
            world.say(f"{wanted.run} is paused")
        await asyncio.sleep(self._random.uniform(0, 12))
        await self._let_go_on(wanted.run)

    async def _let_go_on(self, public: str) -> None:
        run = self._world.ledger.run(public)
        assert run is not None
        self._world.ledger.paused_runs.discard(run.id)
        self._world.resume_asked.add(run.id)
        self._world.extra_commits += 4
        await self._world.insist("POST", f"/runs/{public}/resume")

    async def _emitter(self, seconds: float) -> None:
        """Let events happen, in time or after all."""
        for key in self._random.sample(KEYS, len(KEYS)):
            await asyncio.sleep(self._random.uniform(0, seconds / len(KEYS)))
            self._world.ledger.asked_events.add(key)
            await self._ask_once("/events", {"name": EVENT, "key": key, "payload": None})

    async def _ask_once(self, path: str, body: Any = None) -> Answer | None:
        listening = self._world.listening()
        return await self._world.ask(self._random.choice(listening).slot, "POST", path, body) if listening else None

    async def _ask_once_or_insist(self, path: str, body: Any, may_insist: bool) -> Answer | None:
        world = self._world
        if may_insist:
            return await world.insist("POST", path, body)
        listening = world.listening()
        if not listening:
            return None
        world.starts_in_doubt += 1  # even one that is answered may have been repeated by the network
        return await world.ask(self._random.choice(listening).slot, "POST", path, body)

    async def _try_again(self, wanted: Wanted) -> None:
        world = self._world
        run = world.ledger.run(wanted.run)
        assert run is not None
        while run.id not in world.ledger.rows.ended:  # noqa: ASYNC110 - virtual time costs nothing
            await asyncio.sleep(self._random.uniform(0.5, 2))
        if world.ledger.rows.ended[run.id].state == RunState.SUCCEEDED:
            return
        answer = await self._ask_once_or_insist(f"/runs/{wanted.run}/retry", None, may_insist=False)
        if answer is not None and answer.status == 201:
            again = Wanted(str(answer.json()["id"]), wanted.flow, wanted.workflow)
            world.wanted[again.run] = again

    async def _reader(self) -> None:
        """Look at this and that."""
        world = self._world
        while True:
            await asyncio.sleep(self._random.uniform(2, 8))
            path = self._random.choice(_READS)
            if world.wanted and self._random.random() < 0.7:
                path = f"/runs/{self._random.choice(list(world.wanted))}{self._random.choice(_READS_OF_RUNS)}"
            for node in world.listening()[:1]:
                await world.ask(node.slot, "GET", path)

    async def _operator(self) -> None:
        """Pause and resume queues, and change their limits."""
        world, random = self._world, self._random
        while True:
            await asyncio.sleep(random.uniform(3, 30))
            name = random.choice(("default", "narrow", "slow"))
            if random.random() < 0.3:
                limit = random.randint(1, 4)
                world.limits["narrow"] = max(limit, world.limits["narrow"])
                await world.insist("PATCH", "/queues/narrow", {"max_concurrent_dispatches": limit})
                continue
            if not await self._switch(name, "pause"):
                return
            await asyncio.sleep(random.uniform(0, 8))
            world.ledger.paused.discard(name)
            if not await self._switch(name, "resume"):
                return

    async def _switch(self, name: str, to: str) -> bool:
        """Pause or resume a queue; return whether that is certain."""
        world = self._world
        listening = world.listening()
        answer = (
            await world.ask(self._random.choice(listening).slot, "POST", f"/queues/{name}/{to}") if listening else None
        )
        if answer is None or answer.status != 200:
            world.is_pausing_certain = False
            world.ledger.paused.clear()
            return False
        return True

    async def _inspector(self) -> None:
        """Compare memory and rows now and then, and see whether something waits that need not."""
        while True:
            await asyncio.sleep(self._random.uniform(0.5, 4))
            checks.check_memory(self._world)
            checks.check_healed(self._world)
            await checks.check_waiting(self._world)
            await checks.check_events(self._world)
            await checks.check_deadlines(self._world)
            await checks.check_questions(self._world)

    # --- fate

    async def _now_and_then(self, seconds: float, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            await asyncio.sleep(self._random.expovariate(1 / seconds))
            await act()

    async def _kill(self) -> None:
        alive = [node for node in self._world.nodes.values() if node.can_be_killed and node.process.is_alive]
        if alive:
            self._world.kill(self._random.choice(alive))

    async def _hold(self) -> None:
        listening = self._world.listening()
        for node in self._random.sample(listening, min(1, len(listening))):
            self._world.say(f"{node.name} stands still")
            self._world.loop.hold(node.process, self._random.choice((0.5, 3.0, 20.0)))

    async def _stop(self) -> None:
        world = self._world
        listening = [node for node in world.listening() if node.can_be_killed and not node.process.is_held]
        for node in self._random.sample(listening, min(1, len(listening))):
            node.can_be_killed = False
            world.loop.spawn(None, world.replace(node))

    async def _kill_worker(self) -> None:
        world = self._world
        alive = [worker for worker in world.workers if worker.netloc in world.hosts]
        if not alive:
            return
        worker = self._random.choice(alive)
        world.say(f"worker {worker.name} is killed")
        world.figures.worker_kills += 1
        del world.hosts[worker.netloc]
        assert worker.process is not None
        world.loop.kill(worker.process)
        world.network.cut(worker)
        await asyncio.sleep(self._random.uniform(0, 10))
        if not world.is_healed:
            world.add_worker(len(world.workers))

    async def _silence_worker(self) -> None:
        alive = [worker for worker in self._world.workers if worker.netloc in self._world.hosts]
        if alive:
            worker = self._random.choice(alive)
            self._world.say(f"worker {worker.name} falls silent")
            worker.is_silent = True
            await asyncio.sleep(self._random.uniform(5, 40))
            worker.is_silent = False

    async def _fill_disk(self) -> None:
        """Let the file grow no more for a while."""
        for node in self._world.listening()[:1]:
            assert node.store is not None
            self._world.say("the disk is full")
            raw = node.store._files.connection.connection.driver_connection
            assert raw is not None
            raw.execute("PRAGMA max_page_count = 1").fetchall()  # taken for the number of pages that there are
            try:
                await asyncio.sleep(self._random.uniform(0.5, 10))
            finally:
                if node.process.is_alive:
                    raw.execute("PRAGMA max_page_count = 1073741823").fetchall()

    async def _jump(self) -> None:
        for node in self._world.listening():
            jump = self._random.choice((-60.0, -5.0, 5.0, 60.0))
            self._world.say(f"the clock of {node.name} jumps by {jump} s")
            node.machine.skew += jump
            self._world.latest_jump = max(self._world.latest_jump, abs(node.machine.skew) + 60)
