"""Where the time of W3 goes: samples engine and worker with py-spy and draws their stacks as one flame graph.

    python tests/benchmarks/flame.py [--seconds 15] [--svg FILE]

Prints the functions with the most time of their own and with their callees. Needs the dependency group ``bench`` and
the right to look into other processes of the same user. Only time that holds the interpreter lock is counted: that is
the CPU that can be saved in Python; the commits' flushes are not in it.
"""

import argparse
import asyncio
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # a script finds only what lies beside it

from hopline_engine import event_loop
from tests.benchmarks.flame_graph import Stack, draw
from tests.benchmarks.measures import Sizes
from tests.benchmarks.plant import Plant, running_plant
from tests.benchmarks.starts import at_once

SAMPLES_PER_SECOND = 250
SHOWN = 25
_LINE_NUMBER = re.compile(r":\d+\)$")
_ENTRIES = ("run (hopline_engine/event_loop", "_bootstrap (threading")


def main() -> None:
    """Profile W3 and say what was found."""
    parser = argparse.ArgumentParser(description="Profile W3.")
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--svg", type=Path, help="draw the flame graph into this file")
    asked = parser.parse_args()
    beside = str(Path(sys.executable).parent)
    profiler = shutil.which("py-spy", path=os.pathsep.join((beside, os.environ.get("PATH", ""))))
    if profiler is None:
        parser.error("py-spy is not installed; it is in the dependency group bench")
    with tempfile.TemporaryDirectory(prefix="hopline-flame-") as folder:
        found = event_loop.run(_profiled(profiler, asked.seconds, Path(folder)))
    for process, samples in found.items():
        print(table(process, samples))
    if asked.svg is not None:
        joined = {(process, *stack): count for process, samples in found.items() for stack, count in samples.items()}
        asked.svg.write_text(draw(joined, "W3: 200 runs at once of 10 steps in a row"), encoding="utf-8")


async def _profiled(profiler: str, seconds: int, folder: Path) -> dict[str, Counter[Stack]]:
    async with running_plant(folder) as plant:
        pids = {"engine": plant.engine, "worker": plant.worker}
        sampling = asyncio.gather(
            *[_sample(profiler, pid, seconds, folder / f"{name}.stacks") for name, pid in pids.items()]
        )
        await _work_until(sampling, plant)
        return {name: stacks((folder / f"{name}.stacks").read_text(encoding="utf-8")) for name in pids}


async def _work_until(sampling: "asyncio.Future[list[None]]", plant: Plant) -> None:
    while not sampling.done():
        runs = await at_once(lambda: plant.driver.start("chain_10"), Sizes().runs)
        await plant.ledger.ended(runs)
    await sampling


async def _sample(profiler: str, pid: int, seconds: int, path: Path) -> None:
    options = ["--gil", "--format", "raw", "--rate", str(SAMPLES_PER_SECOND), "--duration", str(seconds)]
    process = await asyncio.create_subprocess_exec(
        profiler, "record", *options, "--pid", str(pid), "--output", str(path), stdout=asyncio.subprocess.DEVNULL
    )
    if await process.wait():
        raise SystemExit("py-spy failed; on some systems it needs more rights")


def stacks(raw: str) -> Counter[Stack]:
    """Return how often each stack was seen, from py-spy's raw format: frames by semicolon, a blank, a number."""
    found: Counter[Stack] = Counter()
    for line in raw.splitlines():
        frames, _, count = line.rpartition(" ")
        found[_trimmed(_LINE_NUMBER.sub(")", frame) for frame in frames.split(";"))] += int(count)
    return found


def _trimmed(frames: Iterable[str]) -> Stack:
    """Leave out what only says how the process was started."""
    stack = tuple(frames)
    starts = [position for position, frame in enumerate(stack) if frame.startswith(_ENTRIES)]
    return stack[starts[0] + 1 :] or stack if starts else stack


def table(process: str, samples: Counter[Stack]) -> str:
    """Return the functions that were seen most, in per cent of all samples, as a table of Markdown."""
    own: Counter[str] = Counter()
    whole: Counter[str] = Counter()
    for stack, count in samples.items():
        own[stack[-1]] += count
        whole.update(dict.fromkeys(set(stack), count))
    total = samples.total() or 1
    names = dict.fromkeys([*(name for name, _ in whole.most_common(SHOWN)), *(name for name, _ in own.most_common(10))])
    rows = [f"| {whole[name] / total:.1%} | {own[name] / total:.1%} | {name} |" for name in names]
    return "\n".join([f"| {process} | of its own | function |", "|---:|---:|---|", *rows, ""])


if __name__ == "__main__":
    main()
