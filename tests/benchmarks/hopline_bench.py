"""Measures Hopline as it is shipped: engine and worker as processes, real sockets, full durability.

    python tests/benchmarks/hopline_bench.py [--only W1,W3] [--rounds 3] [--small] [--json FILE] [--peers [NAME]]
                                              [--store postgres]

Prints a table; every figure stands beside what this machine could do at best right before each round (``floor``). Needs
Linux, and the machine to itself.
"""

import argparse
import json
import os
import platform
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # a script finds only what lies beside it

from hopline_engine import event_loop
from tests.benchmarks import floor, measures, peers
from tests.benchmarks.figures import Figure, as_json, as_table
from tests.benchmarks.measures import SMALL, Setting, Sizes
from tests.benchmarks.plant import Plant, running_handler, running_plant
from tests.support.postgres import database, postgres

Measure = Callable[[Plant, Setting], AsyncIterator[Figure]]

ON_ONE_PLANT: dict[str, Measure] = {
    "W7": measures.idle,  # first: the memory of an engine that has hardly worked
    "W1": measures.chain,
    "W2": measures.fan,
    "W3": measures.many,
    "W4": measures.start,
    "W8": measures.wide,
    "W5": measures.queue,  # last: a thousand connections to the handler stay in the engine's memory
}
ALL = ("W1", "W2", "W3", "W4", "W5", "W6", "W7", "W8")


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description="Measure Hopline.")
    parser.add_argument("--only", default=",".join(ALL), help="workloads, as W1,W3")
    parser.add_argument("--rounds", type=int, default=3, help="the figure is the median of so many")
    parser.add_argument("--small", action="store_true", help="the smallest sizes: they measure nothing")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--store", choices=("sqlite", "postgres"), default="sqlite", help="where the engine keeps it")
    parser.add_argument(
        "--peers", nargs="?", const="", metavar="NAME", help="measure other engines too, or those so named"
    )
    asked = parser.parse_args()
    wanted = {name.strip().upper() for name in asked.only.split(",")}
    if not wanted <= set(ALL):
        parser.error(f"--only takes some of {','.join(ALL)}")
    sizes = SMALL if asked.small else Sizes()
    with tempfile.TemporaryDirectory(prefix="hopline-bench-") as folder, _store(asked.store) as settings:
        found = event_loop.run(_measure(sizes, asked.rounds, wanted, Path(folder), settings))
        found["peers"] = []
        if asked.peers is not None:
            found["peers"] = peers.measure(Path(folder), asked.rounds, small=asked.small, only=asked.peers)
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


@contextmanager
def _store(kind: str) -> Iterator[dict[str, str]]:
    """Yield the settings of an engine that keeps everything in a store of this kind."""
    if kind == "sqlite":
        yield {}
        return
    with postgres(durable=True) as server:
        yield {"HOPLINE_STORE": server.url}


async def _measure(
    sizes: Sizes, rounds: int, wanted: set[str], folder: Path, settings: Mapping[str, str]
) -> dict[str, object]:
    with running_handler() as handler:
        async with floor.running_gauge(folder, handler, sizes.floor) as gauge:
            setting = Setting(sizes=sizes, rounds=rounds, gauge=gauge, handler=handler, folder=folder)
            figures = [found async for found in _figures(wanted, setting, settings)]
    machine, best = _machine() | {"store": "postgres" if settings else "sqlite"}, floor.median(gauge.found)
    print(f"{machine}\nfloor: {asdict(best)}\n\n{as_table(figures)}")
    return {"machine": machine, "floor": asdict(best), "rounds": rounds, "figures": as_json(figures)}


async def _figures(wanted: set[str], setting: Setting, settings: Mapping[str, str]) -> AsyncIterator[Figure]:
    on_one_plant = [measure for name, measure in ON_ONE_PLANT.items() if name in wanted]
    if on_one_plant:
        async with running_plant(setting.folder / "plant", settings=settings) as plant:
            for measure in on_one_plant:
                async for found in measure(plant, setting):
                    yield _told(found)
    if "W6" in wanted:
        async with _new_store(settings) as fresh:
            async for found in measures.old_store(setting, fresh):
                yield _told(found)


@asynccontextmanager
async def _new_store(settings: Mapping[str, str]) -> AsyncIterator[Mapping[str, str]]:
    """Yield the settings of an engine on a store like that of *settings*, on which nothing has run."""
    server = settings.get("HOPLINE_STORE")
    if server is None:
        yield settings
        return
    async with database(server=server) as made:
        yield {"HOPLINE_STORE": made}


def _told(found: Figure) -> Figure:
    print(f"{found.name}: {found.value:.4g} {found.unit}", file=sys.stderr, flush=True)
    return found


def _machine() -> dict[str, object]:
    processor = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    return {
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processor": processor.partition(":")[2].strip(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


if __name__ == "__main__":
    main()
