"""The benchmarks run, and give every figure; what the figures are is no test's business."""

import asyncio
import json
import math
import subprocess
import sys
import tracemalloc
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from tests.benchmarks import waiting_runs
from tests.benchmarks.flame import stacks, table
from tests.benchmarks.flame_graph import draw

HERE = Path(__file__).parent


def run(script: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, HERE / script, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
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


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_engine_is_measured_on_postgres_too(tmp_path: Path) -> None:
    arguments = ("--store", "postgres", "--only", "W1,W3,W6", "--small", "--rounds", "1")
    run("hopline_bench.py", *arguments, "--json", str(tmp_path / "found.json"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["machine"]["store"] == "postgres"
    assert {figure["name"].split()[0] for figure in found["figures"]} == {"W1", "W3", "W6"}


def test_committers_are_measured_on_both_stores() -> None:
    told = run("committer.py", "--groups", "1,2", "--groups-each", "2").splitlines()[1:]
    assert [line.split()[:2] for line in told] == [[store, size] for store in ("sqlite", "postgres") for size in "12"]


def test_start_up_times_are_told_for_each_command() -> None:
    assert [line.split("  ")[0] for line in run("import_time.py", "--times", "1").splitlines()] == [
        "python",
        "import hopline",
        "hopline --help",
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_smallest_growth_gives_every_curve_at_every_size(tmp_path: Path) -> None:
    told = run("growth.py", "--small", "--json", str(tmp_path / "curves.json"))
    curves = json.loads((tmp_path / "curves.json").read_text())
    assert [curve["name"] for curve in curves] == ["steps", "alive", "finished", "waiting", "items"]
    for curve in curves:
        assert len(curve["points"]) == 2
        assert all(point["engine_us"] > 0 and point["wall_us"] > 0 for point in curve["points"]), curve
        assert curve["title"] in told


RAW = """\
run (hopline_engine/event_loop.py:22);outer (hopline_engine/a.py:1);inner <T> (x/b.py:2) 3
run (hopline_engine/event_loop.py:22);outer (hopline_engine/a.py:7) 1
"""


def test_profile_counts_functions_whatever_their_lines() -> None:
    samples = stacks(RAW)
    assert samples == {("outer (hopline_engine/a.py)", "inner <T> (x/b.py)"): 3, ("outer (hopline_engine/a.py)",): 1}
    assert "| 100.0% | 25.0% | outer (hopline_engine/a.py) |" in table("engine", samples)


def test_flame_graph_gives_functions_their_part_of_the_width() -> None:
    picture = ET.fromstring(draw(stacks(RAW), "title"))
    boxes = {box[0].text: float(box[1].attrib["width"]) for box in picture.iter("{http://www.w3.org/2000/svg}g")}
    assert boxes == {
        "all: 100.0%": 1200,
        "outer (hopline_engine/a.py): 100.0%": 1200,
        "inner <T> (x/b.py): 75.0%": 900,
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_runs_that_wait_leave_less_than_a_kilobyte_in_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        cost = asyncio.run(waiting_runs.measure(1000, tmp_path, audit_seconds=0.5))
    finally:
        tracemalloc.stop()
    assert cost.bytes_a_run < 1024 < cost.bytes_a_run_awake
