"""Runs simulations by hand.

    python -m tests.simulation.run --seed 17 -v           one, with its trace
    python -m tests.simulation.run --seeds 0-3000 -j 2    many, in several processes

With ``--defect NAME`` the engine has a defect of ``defects.catalogue``, which some seed must find.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.simulation import Report

SUMMED = (
    "kills",
    "worker_kills",
    "troubles",
    "callbacks",
    "runs",
    "steps",
    "attempts",
    "executions",
    "commits",
    "ticks",
    "virtual_seconds",
)


def main() -> int:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", metavar="FIRST-LAST")
    parser.add_argument("-j", "--processes", type=int, default=1)
    parser.add_argument("-v", "--verbose", action="store_true", help="print the trace")
    parser.add_argument("--digest", action="store_true", help="print the digest of all transactions of each seed")
    parser.add_argument("--defect", help="plant this defect first")
    asked = parser.parse_args()
    if asked.defect is not None:
        from tests.simulation.defects.catalogue import BY_NAME
        from tests.simulation.defects.planting import plant

        plant(BY_NAME[asked.defect])
    if asked.seeds is None:
        return run_one(asked.seed or 0, verbose=asked.verbose)
    first, last = map(int, asked.seeds.split("-"))
    return run_many(range(first, last), asked.processes, digests=asked.digest)


def run_one(seed: int, *, verbose: bool) -> int:
    """Run one simulation and print what became of it."""
    from tests.simulation.simulation import Simulator

    simulator = Simulator()
    try:
        report = simulator.run(seed, print if verbose else None)
    finally:
        simulator.close()
    print(report)
    print(asdict(report.figures))
    return 0 if report.violation is None else 1


def run_many(seeds: Iterable[int], processes: int, *, digests: bool) -> int:
    """Run many simulations and print what is wrong, and figures of all."""
    chosen = list(seeds)
    began = time.perf_counter()
    chunks = [chosen[start : start + 20] for start in range(0, len(chosen), 20)]
    figures: Counter[str] = Counter()
    failed = 0
    with ProcessPoolExecutor(processes) as pool:
        for reports in pool.map(_run_chunk, chunks):
            for report in reports:
                figures["calm"] += report.figures.is_calm
                for name in SUMMED:
                    figures[name] += getattr(report.figures, name)
                if report.violation is not None:
                    failed += 1
                    print(report, flush=True)
                if digests:
                    print(report.figures.seed, report.figures.digest)
    seconds = time.perf_counter() - began
    print(f"{len(chosen)} seeds, {failed} failed, {seconds:.1f} s, {len(chosen) / seconds:.1f} seeds/s")
    print({name: round(value) for name, value in figures.items()})
    return 1 if failed else 0


def _run_chunk(seeds: list[int]) -> "list[Report]":
    from tests.simulation.simulation import Simulator

    simulator = Simulator()
    try:
        return [simulator.run(seed) for seed in seeds]
    finally:
        simulator.close()


if __name__ == "__main__":
    sys.exit(main())
