"""Says of every planted defect which seed finds it first.

python -m tests.simulation.defects.score                   all defects, up to 200 seeds each
python -m tests.simulation.defects.score --only no_fence   one of them
python -m tests.simulation.defects.score --known           each at the seeds that are known to find it first

Which seeds find a defect changes with what the engine awaits; ``--known --write`` notes those that do now.
"""

import argparse
import gc
import importlib
import json
import multiprocessing
import sys
import time
from collections.abc import Iterable
from multiprocessing.pool import Pool
from pathlib import Path
from typing import NamedTuple

from tests.simulation.defects.catalogue import BY_NAME, DEFECTS
from tests.simulation.defects.planting import plant

MOST_SEEDS = 200
KNOWN = Path(__file__).with_name("known.json")
"""Seeds that find each defect."""
_SLOW_IMPORTS = ("alembic", "fastapi", "hypothesis", "jsonschema", "networkx", "sqlmodel", "uvicorn")
"""Imported once for all defects; none of them knows the engine."""


class Found(NamedTuple):
    """What became of the search for one defect."""

    defect: str
    seed: int | None
    seeds: int
    seconds: float
    violation: str


def search(defect: str, seeds: Iterable[int]) -> Found:
    """Plant a defect in this process and run seeds until one of them finds it."""
    plant(BY_NAME[defect])
    gc.disable()  # nothing that is imported is garbage
    from tests.simulation.simulation import Simulator

    gc.enable()
    simulator = Simulator()
    began, count = time.perf_counter(), 0
    try:
        for count, seed in enumerate(seeds, start=1):
            report = simulator.run(seed)
            if report.violation is not None:
                return Found(defect, seed, count, time.perf_counter() - began, report.violation)
        return Found(defect, None, count, time.perf_counter() - began, "")
    finally:
        simulator.close()


def main() -> int:
    """Run what the arguments ask for; return 1 if a defect is not found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=sorted(BY_NAME))
    parser.add_argument("--known", action="store_true", help="first the seeds that are known to find a defect")
    parser.add_argument("-j", "--processes", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="note the seeds that find the defects")
    asked = parser.parse_args()
    names = asked.only or [defect.name for defect in DEFECTS]
    known: dict[str, list[int]] = json.loads(KNOWN.read_text()) if KNOWN.exists() else {}
    work = [(name, [*(known.get(name, []) if asked.known else []), *range(MOST_SEEDS)]) for name in names]
    for module in _SLOW_IMPORTS:
        importlib.import_module(module)
    gc.freeze()  # who looks for garbage writes to all that there is, and what two processes share is copied then
    results = []
    with _pool(asked.processes) as pool:
        for found in pool.imap_unordered(_search, work, chunksize=1):
            results.append(found)
            where = f"seed {found.seed}" if found.seed is not None else "NOT FOUND"
            print(f"{found.defect:28} {where:10} {found.seconds:6.1f} s  {found.violation[:110]}", flush=True)
    missed = [found.defect for found in results if found.seed is None]
    print(f"{len(results) - len(missed)} of {len(results)} defects found; not found: {missed}")
    if asked.write:
        known |= {found.defect: [found.seed] for found in results if found.seed is not None}
        KNOWN.write_text(json.dumps(dict(sorted(known.items())), indent=2) + "\n")
    return 1 if missed else 0


def _pool(processes: int) -> Pool:
    """Return processes of which each looks for one defect: the engine can be imported once only."""
    return multiprocessing.get_context("fork").Pool(processes, maxtasksperchild=1)


def _search(work: tuple[str, list[int]]) -> Found:
    return search(*work)


if __name__ == "__main__":
    sys.exit(main())
