"""The workloads W1 to W8: what each does, and what its figure is."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import msgspec

from tests.benchmarks import history
from tests.benchmarks.figures import Figure, Measuring, figure
from tests.benchmarks.floor import FULL_LOAD, SMALL_LOAD, Gauge, Load
from tests.benchmarks.plant import Plant, running_plant
from tests.benchmarks.starts import at_once, at_pace
from tests.benchmarks.usage import Usage, share_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much of everything."""

    chain: str = "chain_100"
    chain_steps: int = 100
    width: int = 1000
    runs: int = 200
    starts: int = 50
    tasks: int = 5000
    paced: int = 500
    histories: tuple[int, ...] = (0, 100_000, 1_000_000)
    idle_seconds: float = 60.0
    wide: tuple[int, ...] = (10_000, 100_000)
    floor: Load = FULL_LOAD


SMALL = Sizes(
    chain="chain_10",
    chain_steps=10,
    width=100,
    runs=20,
    starts=5,
    tasks=200,
    paced=20,
    histories=(0, 10_000),
    idle_seconds=1.0,
    wide=(500, 1000),
    floor=SMALL_LOAD,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all workloads are measured with."""

    sizes: Sizes
    rounds: int
    gauge: Gauge
    handler: str
    folder: Path

    def at(self, plant: Plant) -> Measuring:
        """Return with what figures of a plant are found."""
        return Measuring(plant=plant, gauge=self.gauge, rounds=self.rounds)


async def chain(plant: Plant, setting: Setting, prefix: str = "W1") -> AsyncIterator[Figure]:
    """One run of steps in a row: from the start of one attempt to that of the next, as the engine stamps them."""

    async def work() -> float:
        run = await plant.run(setting.sizes.chain)
        return statistics.median(plant.ledger.hops(run)) * 1e3

    name = f"{prefix} chain: median hop"
    yield await figure(name, "ms", setting.at(plant), work, steps=setting.sizes.chain_steps, least=attrgetter("hop_ms"))


async def fan(plant: Plant, setting: Setting, prefix: str = "W2") -> AsyncIterator[Figure]:
    """One step, then a map, then one step."""
    steps = setting.sizes.width + 2

    async def work() -> float:
        run = await plant.run("fan", width=setting.sizes.width)
        return steps / plant.ledger.seconds([run])

    name = f"{prefix} fan 1 -> {setting.sizes.width:,} -> 1"
    yield await figure(name, "steps/s", setting.at(plant), work, steps=steps, least=attrgetter("fan_per_second"))


async def many(plant: Plant, setting: Setting, prefix: str = "W3") -> AsyncIterator[Figure]:
    """Many runs of ten steps in a row at once; their starts, by the API, are part of it."""
    steps = setting.sizes.runs * 10

    async def work() -> float:
        runs = await at_once(lambda: plant.driver.start("chain_10"), setting.sizes.runs)
        await plant.ledger.all_ended()
        return steps / plant.ledger.seconds(runs)

    name = f"{prefix} {setting.sizes.runs} runs of 10"
    yield await figure(name, "steps/s", setting.at(plant), work, steps=steps, least=attrgetter("many_per_second"))


async def start(plant: Plant, setting: Setting) -> AsyncIterator[Figure]:
    """From before a run is asked for over HTTP to the first line of its step; one after the other."""

    async def work() -> float:
        waits = []
        for _ in range(setting.sizes.starts):
            asked = time.time()
            run = await plant.run("begun")
            waits.append(msgspec.json.decode(plant.ledger.result(run), type=float) - asked)
        return statistics.median(waits) * 1e3

    name = "W4 POST /runs to the step's first line"
    yield await figure(name, "ms", setting.at(plant), work, steps=setting.sizes.starts, least=attrgetter("start_ms"))


async def queue(plant: Plant, setting: Setting) -> AsyncIterator[Figure]:
    """HTTP steps to a local handler: as many as go, as one map; then as runs of one step at a steady pace."""
    sizes = setting.sizes

    async def map_all() -> float:
        run = await plant.run("pings", values=list(range(sizes.tasks)), url=setting.handler)
        return sizes.tasks / plant.ledger.seconds([run])

    name = f"W5 map of {sizes.tasks:,} HTTP steps"
    yield await figure(
        name, "steps/s", setting.at(plant), map_all, steps=sizes.tasks, least=attrgetter("exchanges_per_second")
    )
    delays: list[float] = []

    async def pace() -> float:
        delays.extend(await _paced(plant, setting))
        return statistics.median(delays) * 1e3

    name = "W5 POST /runs to the handler, 100/s"
    yield await figure(f"{name}: p50", "ms", setting.at(plant), pace, steps=sizes.paced, least=attrgetter("paced_ms"))
    yield Figure(name=f"{name}: p99", value=statistics.quantiles(delays, n=100)[98] * 1e3, unit="ms")


async def old_store(setting: Setting, settings: Mapping[str, str]) -> AsyncIterator[Figure]:
    """W1 to W3 again, on stores with a past."""
    folder, present, digest = setting.folder / "old", 0, ""
    for finished in setting.sizes.histories:
        if finished:
            store = history.store_of(folder, settings)
            await history.fill(store, digest, present=present, wanted=finished)
        present = finished
        async with running_plant(folder, settings=settings) as plant:
            digest = plant.ledger.digest("chain_10")
            for measure in (chain, fan, many):
                async for found in measure(plant, setting, f"W6 {finished:,} finished steps:"):
                    yield found


async def idle(plant: Plant, setting: Setting) -> AsyncIterator[Figure]:
    """Nothing to do: the share of one core, and the memory, of engine and worker together."""
    pids = (plant.engine, plant.worker)
    before = [Usage.of(pid) for pid in pids]
    await asyncio.sleep(setting.sizes.idle_seconds)
    after = [Usage.of(pid) for pid in pids]
    spent = sum(one.cpu_seconds - other.cpu_seconds for one, other in zip(after, before, strict=True))
    name = f"W7 idle for {setting.sizes.idle_seconds:g} s"
    yield Figure(name=f"{name}: CPU", value=spent / setting.sizes.idle_seconds * 100, unit="% of a core")
    yield _memory(f"{name}: RSS", *[usage.resident_bytes for usage in after])
    yield _memory(f"{name}: PSS", *[share_bytes(pid) for pid in pids])


def _memory(name: str, engine: int, worker: int) -> Figure:
    megabytes = (engine / 1e6, worker / 1e6)
    return Figure(name=name, value=sum(megabytes), unit="MB", engine_peak_mb=megabytes[0], worker_peak_mb=megabytes[1])


async def wide(plant: Plant, setting: Setting) -> AsyncIterator[Figure]:
    """One map of very many elements."""
    for width in setting.sizes.wide:
        first: list[float] = []

        async def work(width: int = width, first: list[float] = first) -> float:
            run = await plant.run("fan", width=width)
            first.append(plant.ledger.first_element(run) * 1000)
            return width / plant.ledger.seconds([run])

        name = f"W8 map of {width:,}"
        yield await figure(name, "steps/s", setting.at(plant), work, steps=width, least=attrgetter("fan_per_second"))
        yield Figure(
            name=f"{name}: its first element has ended", value=statistics.median(first), unit="ms", rounds=first
        )


async def _paced(plant: Plant, setting: Setting) -> list[float]:
    """Start runs at a steady pace; return how long each took to reach the handler."""
    started = await at_pace(lambda: plant.driver.start("one_ping", url=setting.handler), setting.sizes.paced)
    await plant.ledger.all_ended()
    return [msgspec.json.decode(plant.ledger.result(run), type=float) - asked for asked, run in started]
