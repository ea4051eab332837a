"""Steps that look again until they find something, in some simulations: how often, and that they rest in between."""

from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any

from tests.core.rows import Place
from tests.core.worlds import ref, retry, step

if TYPE_CHECKING:
    from tests.simulation.world import World

COMMITS_A_LOOK = 3


def add_sensor(
    random: Random, workflow: str, nodes: list[dict[str, Any]], names: list[str], looks: dict[tuple[str, str], int]
) -> list[str]:
    """Let a workflow have a sensor, perhaps after one of *names*; note how often it looks in vain in *looks*."""
    if random.random() < 0.3:
        return []
    sensor = step("q0", after=random.sample(names, random.randint(0, 1)))
    sensor["policy"] |= {"every": random.choice((0.5, 2.0, 5.0)), "retry": retry(2, 0.5, 2.0, 8.0)}
    following = step("q1", {"found": ref("q0")})
    for node in (sensor, following):
        node["step"] = "a"
        nodes.append(node)
    looks[workflow, "q0"] = random.choice((0, 1, 2, 4))
    return ["q1"]


class Sensors:
    """Those of one simulation."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._vain: Counter[Place] = Counter()
        self._rests: dict[tuple[Place, int], float] = {}
        """Until when each attempt rests."""

    def begin(self, place: Place, attempt: int) -> None:
        """Check that a look does not come too soon after the one before it."""
        world = self._world
        is_exact = not (world.faults_drawn.clock_jumps or world.faults_drawn.skew)
        rests = self._rests.get((place, attempt), 0.0)
        if is_exact and (place, attempt) not in world.conducts.disturbed and world.loop.time() < rests - 0.01:
            world.violated(f"{world.ledger.name(place)} looks again, and was to rest until {rests}")

    def finds_nothing(self, workflow: str, place: Place, attempt: int) -> bool:
        """Return whether a look of a step is in vain."""
        world = self._world
        node = world.ledger.node(place[0], place[1])
        if self._vain[place] >= world.kinds.looks.get((workflow, node.id), 0):
            return False
        self._vain[place] += 1
        world.extra_commits += COMMITS_A_LOOK
        assert node.every is not None
        self._rests[place, attempt] = world.loop.time() + node.every
        return True
