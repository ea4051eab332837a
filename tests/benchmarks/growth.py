"""Measures whether a step costs more when there is more of something: a curve for each thing that can grow.

    python tests/benchmarks/growth.py [--only waiting,items] [--small] [--json FILE] [--png FILE]

Prints the CPU of the engine and the time for each step, in microseconds. The CPU is the figure that other users of the
machine disturb least. ``--png`` draws the curves and needs the dependency group ``bench``.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[2]))  # a script finds only what lies beside it

from hopline_engine import event_loop
from tests.benchmarks import history
from tests.benchmarks.plant import Plant, running_handler, running_plant
from tests.benchmarks.starts import at_once
from tests.benchmarks.usage import Usage

WORKFLOWS = "growth_workloads.py"
PROBE_RUNS = 50
"""What is measured where the rest stands still: so many runs at once of ten steps in a row."""
ROUNDS = 5
FEWEST_STEPS = 2000
"""Short runs are repeated until there were so many steps."""
MOST_ITEMS = 100_000
"""Of one map whose tasks wait."""
ALL_IN_MEMORY = {"HOPLINE_MAP_WINDOW": str(MOST_ITEMS), "HOPLINE_PARK_SECONDS": "86400"}
"""Maps are open whole, and stay in memory while they only wait: none leaves it while it is measured."""


class Point(NamedTuple):
    """What a step costs at one size."""

    size: int
    engine_us: float
    """CPU of the engine."""
    wall_us: float


@dataclass(frozen=True, slots=True)
class Sizes:
    """How far each curve goes."""

    steps: tuple[int, ...] = (10, 100, 1000, 10_000)
    alive: tuple[int, ...] = (1, 10, 100, 1000, 10_000)
    finished: tuple[int, ...] = (0, 1000, 10_000, 100_000, 1_000_000)
    waiting: tuple[int, ...] = (0, 1000, 10_000, 100_000, 1_000_000)
    items: tuple[int, ...] = (10, 100, 1000, 10_000, 100_000)
    fewest_steps: int = FEWEST_STEPS
    probe_runs: int = PROBE_RUNS
    rounds: int = ROUNDS


SMALL = Sizes(
    steps=(10, 100),
    alive=(1, 20),
    finished=(0, 1000),
    waiting=(0, 200),
    items=(10, 100),
    fewest_steps=100,
    probe_runs=10,
    rounds=1,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all curves are measured with."""

    sizes: Sizes
    folder: Path
    handler: str


async def steps(setting: Setting) -> AsyncIterator[Point]:
    """One run at a time, of steps in a row."""
    async with running_plant(setting.folder / "steps", WORKFLOWS) as plant:
        for size in setting.sizes.steps:
            yield await _repeated(plant, setting, size, size, partial(plant.run, f"chain_{size}"))


async def items(setting: Setting) -> AsyncIterator[Point]:
    """One map at a time, between two steps."""
    async with running_plant(setting.folder / "items", WORKFLOWS) as plant:
        for size in setting.sizes.items:
            yield await _repeated(plant, setting, size, size + 2, partial(plant.run, "fan", width=size))


async def alive(setting: Setting) -> AsyncIterator[Point]:
    """Runs that wait for a callback, beside those that are measured."""
    async with running_plant(setting.folder / "alive", WORKFLOWS) as plant:
        present = 0
        for size in setting.sizes.alive:
            await at_once(lambda: plant.driver.start("waits", url=f"{setting.handler}accepted"), size - present)
            present = size
            await plant.ledger.waiting(size)
            yield await _probed(plant, setting, size)


async def waiting(setting: Setting) -> AsyncIterator[Point]:
    """Tasks that were tried and are due again in an hour: elements of maps, beside the runs that are measured."""
    async with running_plant(setting.folder / "waiting", WORKFLOWS, ALL_IN_MEMORY) as plant:
        present = 0
        for size in setting.sizes.waiting:
            while present < size:
                count = min(size - present, MOST_ITEMS)
                await plant.driver.start("wait", count=count, url=f"{setting.handler}later")
                present += count
                await plant.ledger.waiting(present)
            yield await _probed(plant, setting, size)


async def finished(setting: Setting) -> AsyncIterator[Point]:
    """Steps of runs that ended a month ago."""
    folder, present, digest = setting.folder / "finished", 0, ""
    for size in setting.sizes.finished:
        if size:
            await history.fill(history.store_of(folder, {}), digest, present=present, wanted=size)
        present = size
        async with running_plant(folder, WORKFLOWS) as plant:
            digest = plant.ledger.digest("chain_10")
            yield await _probed(plant, setting, size)


@dataclass(frozen=True, slots=True)
class Kind:
    """One thing that can grow."""

    title: str
    points: Callable[[Setting], AsyncIterator[Point]]


CURVES = {
    "steps": Kind("steps in the run", steps),
    "alive": Kind("other runs alive", alive),
    "finished": Kind("finished steps in the store", finished),
    "waiting": Kind("tasks waiting for later", waiting),
    "items": Kind("items of the map", items),
}


@dataclass(frozen=True, slots=True)
class Curve:
    """What was measured of one thing that can grow."""

    name: str
    title: str
    points: list[Point] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """Return it as a JSON value."""
        return {"name": self.name, "title": self.title, "points": [point._asdict() for point in self.points]}


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description="Measure what growth costs.")
    parser.add_argument("--only", default=",".join(CURVES), help="curves, as waiting,items")
    parser.add_argument("--small", action="store_true", help="the smallest sizes: they measure nothing")
    parser.add_argument("--json", type=Path, help="write the points to this file")
    parser.add_argument("--png", type=Path, help="draw the curves into this file")
    asked = parser.parse_args()
    wanted = [name.strip() for name in asked.only.split(",")]
    if not set(wanted) <= CURVES.keys():
        parser.error(f"--only takes some of {','.join(CURVES)}")
    with tempfile.TemporaryDirectory(prefix="hopline-growth-") as folder:
        curves = event_loop.run(_measured(SMALL if asked.small else Sizes(), wanted, Path(folder)))
    if asked.json is not None:
        asked.json.write_text(json.dumps([curve.as_json() for curve in curves], indent=2), encoding="utf-8")
    if asked.png is not None:
        from tests.benchmarks.growth_picture import draw  # matplotlib is in a group of its own

        draw(curves, asked.png)


async def _measured(sizes: Sizes, wanted: list[str], folder: Path) -> list[Curve]:
    curves = []
    with running_handler() as handler:
        for name in wanted:
            curve = Curve(name, CURVES[name].title)
            curves.append(curve)
            async for point in CURVES[name].points(Setting(sizes=sizes, folder=folder, handler=handler)):
                curve.points.append(point)
                print(
                    f"{curve.title}: {point.size:,}: {point.engine_us:.0f} us CPU, {point.wall_us:.0f} us", flush=True
                )
    return curves


async def _probed(plant: Plant, setting: Setting, size: int) -> Point:
    async def work() -> float:
        runs = await at_once(lambda: plant.driver.start("chain_10"), setting.sizes.probe_runs)
        await plant.ledger.ended(runs)
        return plant.ledger.seconds(runs)

    return await _measure(plant, setting, size, setting.sizes.probe_runs * 10, work)


async def _repeated(
    plant: Plant, setting: Setting, size: int, steps_of_run: int, run: Callable[[], Awaitable[str]]
) -> Point:
    times = max(1, setting.sizes.fewest_steps // steps_of_run)

    async def work() -> float:
        return sum([plant.ledger.seconds([await run()]) for _ in range(times)])

    return await _measure(plant, setting, size, times * steps_of_run, work)


async def _measure(
    plant: Plant, setting: Setting, size: int, steps_of_work: int, work: Callable[[], Awaitable[float]]
) -> Point:
    """Return the medians of some rounds of *work*, which returns its seconds; one before them is not counted."""
    await work()
    rounds = []
    for _ in range(setting.sizes.rounds):
        before = Usage.of(plant.engine).cpu_seconds
        seconds = await work()
        spent = Usage.of(plant.engine).cpu_seconds - before
        rounds.append((spent * 1e6 / steps_of_work, seconds * 1e6 / steps_of_work))
    engine_us, wall_us = (statistics.median(values) for values in zip(*rounds, strict=True))
    return Point(size, engine_us, wall_us)


if __name__ == "__main__":
    main()
