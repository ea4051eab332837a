"""The measure of the simulation: it finds every defect that is planted in the engine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.defects.catalogue import BY_NAME, DEFECTS
from tests.simulation.defects.defect import Defect
from tests.simulation.defects.planting import source_of, spoiled
from tests.simulation.defects.score import KNOWN

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_fits_the_source_and_leaves_a_module_that_compiles(defect: Defect) -> None:
    compile(spoiled(defect, source_of(defect)), defect.module, "exec")


def test_every_defect_has_a_name_of_its_own_and_seeds_that_find_it() -> None:
    assert len(BY_NAME) == len(DEFECTS)
    assert json.loads(KNOWN.read_text()).keys() == BY_NAME.keys()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_defect_is_found() -> None:
    """Soon where the seeds that are known to find it are up to date, and otherwise at some other seed."""
    command = [sys.executable, "-m", "tests.simulation.defects.score", "--known"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout + ended.stderr
