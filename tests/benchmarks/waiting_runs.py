"""What runs cost that only wait: memory and CPU of an engine with many of them parked.

    python -m tests.benchmarks.waiting_runs --runs 25000

Starts lots of runs that wait for an event, in this process and without HTTP, waits until all have left memory, and
measures what is left of them and what the process does for them. Then one of them is woken by its event.
"""

import argparse
import asyncio
import gc
import json
import resource
import tempfile
import tracemalloc
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from hopline import Event, workflow
from hopline_engine import clock
from hopline_engine.bootstrap import open_engine
from hopline_engine.scheduler.engine import Engine
from hopline_engine.settings import Settings
from hopline_engine.store import parked

AT_A_TIME = 500
AUDITS = 2
"""Passes of the audit that the measured time covers."""
LOTS = 3
"""Lots of runs that are measured. What runs leave behind they leave in each; what else happens meanwhile is in one."""

done = Event("done", str)


@workflow
def waits(number: int) -> str:
    return done.wait(key=f"{number}", timeout="30d")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What was measured."""

    runs: int
    """In each lot."""
    bytes_a_run: float
    """Memory that the process has more than before a lot, divided by its runs, all of which wait."""
    bytes_a_run_awake: float
    """The same of those that are in memory; the first may leave it before the last are started."""
    cpu_share: float
    """Of one core, while nothing happens."""
    wake_seconds: float
    """From an event to the durable end of its run."""


async def measure(runs: int, folder: Path, audit_seconds: float = 30.0) -> Cost:
    """Return what so many waiting runs cost."""
    park_seconds = 2.0
    settings = Settings.load(state_dir=folder, park_seconds=park_seconds, audit_seconds=audit_seconds)
    async with open_engine(settings) as installation:
        await installation.serve(0)
        engine: Engine = installation.app.state.engine._engine
        await engine.controls.register([waits.compile().to_json()], ["waits"])
        # What the process takes once, for as many as are in memory at a time, is no cost of those that wait.
        await _lot(engine, 0, runs)
        lots = [await _lot(engine, lot, runs) for lot in range(1, 1 + LOTS)]
        share = await _cpu_share(AUDITS * audit_seconds)
        began = clock.monotonic()
        await engine.events.emit("done", "7", b'"yes"')
        woken = clock.monotonic() - began
    return Cost(
        runs=runs,
        bytes_a_run=min(left for left, _ in lots),
        bytes_a_run_awake=max(awake for _, awake in lots),
        cpu_share=share,
        wake_seconds=woken,
    )


async def _lot(engine: Engine, lot: int, runs: int) -> tuple[float, float]:
    """Start one more lot of runs; return the bytes that each left behind, and those of each while it was in memory."""
    before = _held()
    await _start(engine, lot * runs, runs)
    awake = (_held() - before) / max(1, len(engine.coordinator.runs))
    await _until_parked(engine, (lot + 1) * runs)
    return (_held() - before) / runs, awake


async def _start(engine: Engine, first: int, count: int) -> None:
    for begin in range(first, first + count, AT_A_TIME):
        starts = [engine.start_run("waits", {"number": number}, None) for number in range(begin, begin + AT_A_TIME)]
        await asyncio.gather(*starts)


async def _until_parked(engine: Engine, count: int) -> None:
    while await engine.store.read(parked.count) < count or engine.coordinator.runs:  # noqa: ASYNC110 - rows signal nothing
        await asyncio.sleep(0.2)


async def _cpu_share(seconds: float) -> float:
    before, began = _cpu(), clock.monotonic()
    await asyncio.sleep(seconds)
    return (_cpu() - before) / (clock.monotonic() - began)


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _held() -> int:
    """Return how much memory the process has: what objects take where that is traced, else what is resident."""
    gc.collect()
    if tracemalloc.is_tracing():
        return tracemalloc.get_traced_memory()[0]
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=25_000, help="in each of four lots")
    parser.add_argument("--audit-seconds", type=float, default=30.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = partial(measure, asked.runs, Path(folder), asked.audit_seconds)
        print(json.dumps(asdict(asyncio.run(run())), indent=2))


if __name__ == "__main__":
    main()
