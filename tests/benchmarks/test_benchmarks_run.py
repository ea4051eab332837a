"""The benchmarks run, and give every figure; what the figures are is no test's business."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run(script: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, HERE / script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_smallest_sizes_give_every_figure(tmp_path: Path) -> None:
    table = run("hopline_bench.py", "--small", "--rounds", "1", "--json", str(tmp_path / "found.json"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert {figure["name"].split()[0] for figure in found["figures"]} == {f"W{number}" for number in range(1, 9)}
    for figure in found["figures"]:
        assert math.isfinite(figure["value"]), figure
        assert figure["name"] in table
    assert all(value > 0 for value in found["floor"].values())
    assert found["machine"]["cores"] >= 1
    assert found["peers"] == []


def test_start_up_times_are_told_for_each_command() -> None:
    assert [line.split("  ")[0] for line in run("import_time.py", "--times", "1").splitlines()] == [
        "python",
        "import hopline",
        "hopline --help",
    ]
