"""Steps in which people decide, in some simulations: which there are, who decides, and what must come of it.

People look at what they are asked, and answer through the API or on the page of the link; some answers come too late,
some people are asked twice, and sometimes two of them decide at the same time. Of each question one answer counts.
"""

import asyncio
import json
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from hopline_engine.core.model import WHOLE, StepState
from tests.core.rows import Place
from tests.core.worlds import branch, guard, guarded, ref, retry, step
from tests.simulation.network import Answer, Request

if TYPE_CHECKING:
    from tests.simulation.world import World

PEOPLE = 2
NO_FORM = {"type": "object", "properties": {"form": {"type": "null"}}}
LATE_SECONDS = 2.0
"""After its time a question is open no more, where nothing keeps the engine from noticing."""


def add_approval(random: Random, nodes: list[dict[str, Any]], names: list[str]) -> list[str]:
    """Let a person decide which of two steps is run, perhaps after one of *names*; return what is in the result."""
    if random.random() < 0.3:
        return []
    before = random.sample(names, random.randint(0, 1))
    asked = step("p0", {"prompt": "Go on?"}, after=before, deadline=random.choice((None, None, 3.0, 20.0)))
    yes, no = guard(ref("p0", "approved")), guard(ref("p0", "approved"), expected=False)
    done = [
        guarded(step(name, {"who": ref("p0", "by")}) | {"step": "a"}, own) for name, own in (("p1", yes), ("p2", no))
    ]
    for node in done:
        node["policy"]["retry"] = retry(2, 0.5, 2.0, 8.0)
    joined = branch("p3", ([yes], ref("p1")), ([no], ref("p2")))
    asked |= {"kind": "approval", "step": "approval", "signature": "", "result": NO_FORM}
    nodes += [asked, *done, joined]
    return ["p3"]


@dataclass(frozen=True)
class Said:
    """What somebody answered."""

    place: Place
    approved: bool


class Approvals:
    """Plays the people of one simulation, and keeps a book of what they said."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._random = Random(f"people {world.seed}")
        self._said: dict[str, Said] = {}
        """By the name of who said it, which nobody else has."""
        self._taken: dict[Place, str] = {}
        """Who decided, where that was acknowledged."""
        self._unsure: set[Place] = set()
        """Questions of which it is not known what became of an answer."""

    @property
    def are_there(self) -> bool:
        """Whether there are any in this simulation."""
        return "approvals" in self._world.kinds.names

    # --- what people do

    async def decide_now_and_then(self) -> None:
        """Look at what is asked, and answer some of it."""
        while True:
            await asyncio.sleep(self._random.uniform(1, 8))
            for run, name in await self._open():
                if self._random.random() < 0.5:
                    self._decide(run, name)

    async def decide_all(self) -> None:
        """Answer whatever is asked."""
        while True:
            for run, name in await self._open():
                self._decide(run, name)
            await asyncio.sleep(2.0)

    def _decide(self, run: str, name: str) -> None:
        for _ in range(self._random.choice((1, 1, 2))):
            who = f"person {len(self._said)}"
            place = self._world.ledger.place(run, name)
            self._said[who] = Said(place, self._random.random() < 0.6)
            self._world.loop.spawn(None, self._answer(run, name, who))

    async def _answer(self, run: str, name: str, who: str) -> None:
        """Answer, and once more if it is not known whether that was taken."""
        await asyncio.sleep(self._random.choice((0.0, 0.0, self._random.uniform(0, 4))))
        approved = self._said[who].approved
        path = f"/approvals/{run}/{name}"
        for _ in range(self._random.choice((1, 2))):
            listening = self._world.listening()
            if listening:
                slot = self._random.choice(listening).slot
                if await self._world.ask(slot, "POST", path, {"approved": approved, "by": who}) is not None:
                    return

    async def _open(self) -> list[tuple[str, str]]:
        """Return what is asked; what was decided before is not among it."""
        world, taken = self._world, set(self._taken)
        listening = world.listening()
        answer = await world.ask(listening[0].slot, "GET", "/approvals?limit=500") if listening else None
        if answer is None or answer.status != 200:
            return []
        found = [(str(each["run"]), str(each["step"])) for each in json.loads(answer.body)["approvals"]]
        if again := [each for each in found if world.ledger.place(*each) in taken]:
            world.violated(f"{again} were decided, and are asked again")
        return found

    # --- what must come of it

    def problem(self, run: str, name: str, request: Request, answer: Answer) -> str | None:
        """Return what is wrong with the answer that somebody got who decided."""
        place = self._world.ledger.place(run, name)
        who = json.loads(request.body)["by"]
        match answer.status:
            case 200:
                self._taken.setdefault(place, who)
                stored = self.stored(place)
                if stored is None or stored["by"] != who or stored["approved"] is not self._said[who].approved:
                    return f"the store says {stored}"
                return None if self._taken[place] == who else f"{self._taken[place]} was told so before"
            case 409:
                self._world.loop.spawn(None, self._check_refusal(place, self._world.figures.kills))
                return None
            case 503:
                self._unsure.add(place)
                return None
        return "that is not among the answers"

    async def _check_refusal(self, place: Place, kills: int) -> None:
        """Check that who was told that nothing is asked was not alone with that: another answer was being taken."""
        await asyncio.sleep(LATE_SECONDS)
        world = self._world
        is_open = any((task.run_id, task.node, task.item) == place for task in world.ledger.rows.tasks.values())
        is_sure = place not in self._unsure and world.figures.kills == kills
        if is_open and is_sure and all(node.is_quiet for node in world.nodes.values()):
            world.violated(f"{world.ledger.name(place)} waits for an answer, and one was refused")

    def stored(self, place: Place) -> dict[str, Any] | None:
        """Return the answer that is stored to a question."""
        rows = self._world.ledger.rows
        for task, asked in rows.approvals.items():
            if (asked.run_id, asked.node, asked.item) == place and task in rows.answers:
                stored = rows.answers[task]
                return {"approved": stored.approved, "by": stored.person}
        return None

    def overdue(self) -> set[int]:
        """Return the questions whose time is over, and that are open."""
        rows, now = self._world.ledger.rows, self._world.now()
        tasks = [rows.tasks[task] for task in rows.approvals if task in rows.tasks]
        return {task.id for task in tasks if task.schedule_time < now}

    def pronounce(self) -> None:
        """Check all questions, when every run has ended."""
        world, rows = self._world, self._world.ledger.rows
        places = [(asked.run_id, asked.node, asked.item) for asked in rows.approvals.values()]
        if len(set(places)) < len(places):
            world.violated(f"something was asked twice: {sorted(places)}")
        for asked in rows.approvals.values():
            place = asked.run_id, asked.node, asked.item
            seconds = self._seconds(place)
            if asked.expires_at != (asked.asked_at + seconds if seconds is not None else None):
                world.violated(f"{world.ledger.name(place)} is open until {asked.expires_at}, not for {seconds} s")
            self._check(place, asked.asked_at, asked.expires_at)

    def _seconds(self, place: Place) -> float | None:
        """Return for how long a question is open, by the definition."""
        workflow = self._world.ledger.rows.runs[place[0]].workflow
        name = self._world.ledger.node(place[0], place[1]).id
        nodes = self._world.flow_of(workflow).definitions[workflow]["nodes"]
        seconds: float | None = next(node["policy"]["deadline"] for node in nodes if node["id"] == name)
        return seconds

    def _check(self, place: Place, asked_at: float, expires_at: float | None) -> None:
        world = self._world
        name, stored = world.ledger.name(place), self.stored(place)
        end = world.ledger.rows.steps[place[0]][place[1], WHOLE]
        if stored is not None and self._said.get(stored["by"]) != Said(place, stored["approved"]):
            world.violated(f"{name} is decided by {stored}, and nobody said so")
        if (stored is not None) != (end.state == StepState.SUCCEEDED):
            world.violated(f"{name} {end.state}, and the answer is {stored}")
        if end.state != StepState.FAILED:
            return
        if expires_at is None and b"DeadlineExceeded" not in (end.error or b""):
            world.violated(f"{name} failed, and could have waited for ever: {end}")
        is_exact = not (world.faults_drawn.clock_jumps or world.faults_drawn.skew)
        if expires_at is not None and is_exact and asked_at <= end.ended_at < expires_at - 0.01:
            world.violated(f"{name} is given up at {end.ended_at}, before {expires_at}: {end}")
