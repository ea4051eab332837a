"""Many simulations, each of another seed: whatever goes wrong around it, the engine keeps its promises.

A failure names its seeds and the command that plays one of them again, with all that happened in it.
"""

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.simulation.simulation import Report, Simulator

ROOT = Path(__file__).parents[2]
SEEDS = 300
PART = 20
DONE = ("is_calm", "kills", "worker_kills", "troubles", "ticks")
DIGESTED = "40-48"


@pytest.fixture(scope="module")
def simulate() -> Iterator[Callable[[int], Report]]:
    """Return what runs the simulation of a seed, and runs none twice."""
    simulator = Simulator()
    yield functools.cache(simulator.run)
    simulator.close()


@pytest.mark.timeout(600)
def test_simulations_do_what_they_are_for(simulate: Callable[[int], Report]) -> None:
    figures = [asdict(simulate(seed).figures) for seed in range(PART)]
    total = {name: sum(each[name] for each in figures) for name in DONE}

    assert all(total.values()), total
    assert sum(each["callbacks"] for each in figures) > PART
    assert sum(each["steps"] for each in figures) > 20 * PART


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_nothing_is_lost_doubled_or_stuck_whatever_goes_wrong(simulate: Callable[[int], Report], first: int) -> None:
    reports = [simulate(seed) for seed in range(first, first + PART)]

    assert not [report for report in reports if report.violation], _told(reports)


@pytest.mark.timeout(600)
def test_a_seed_is_the_same_simulation_in_every_process() -> None:
    digests = {hash_seed: _digests(hash_seed) for hash_seed in ("0", "1", "777")}

    assert digests["0"] == digests["1"] == digests["777"]


def _digests(hash_seed: str) -> str:
    """Return what a process with this seed of hashes prints as digests of all transactions."""
    command = [sys.executable, "-m", "tests.simulation.run", "--seeds", DIGESTED, "--digest"]
    ended = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return "\n".join(line for line in ended.stdout.splitlines() if line[:1].isdigit() and "seeds" not in line)


def _told(reports: list[Report]) -> str:
    return "\n".join(str(report) for report in reports if report.violation)
