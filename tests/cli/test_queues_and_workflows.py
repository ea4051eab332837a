"""``hopline queues`` and ``hopline workflows``."""

import json
from pathlib import Path

import pytest

from hopline_cli.errors import ExitCode
from tests.cli.conftest import Cli
from tests.cli.fake_api import FakeApi

DEFAULT = {
    "name": "default", "state": "running", "max_dispatches_per_second": None, "max_burst_size": None,
    "max_concurrent_dispatches": None, "ready": 12, "waiting_for_key": 3, "scheduled": 104, "in_flight": 8,
    "oldest_ready_seconds": 3.2,
}  # fmt: skip
MAIL = DEFAULT | {
    "name": "mail", "state": "paused", "max_dispatches_per_second": 2.0, "max_burst_size": 10,
    "max_concurrent_dispatches": 5, "ready": 1904, "waiting_for_key": 0, "in_flight": 0, "oldest_ready_seconds": 840.0,
}  # fmt: skip


def test_queues_are_listed_with_their_load(api: FakeApi, cli: Cli) -> None:
    api.answer("GET", "/queues", {"queues": [DEFAULT, MAIL]})
    assert [line.split("  ") for line in cli("queues", "list", "-q").out.splitlines()] == [["default"], ["mail"]]
    lines = cli("queues", "list").out.splitlines()
    assert lines[1].split() == ["default", "running", "12", "+3", "104", "8", "3.2", "s", "-"]
    assert lines[2].split() == ["mail", "paused", "1,904", "104", "0", "of", "5", "14", "min", "0", "s", "2/s"]
    assert json.loads(cli("queues", "list", "--json").out) == [DEFAULT, MAIL]


def test_one_queue_is_shown_with_its_limits(api: FakeApi, cli: Cli) -> None:
    api.answer("GET", "/queues/mail", MAIL)
    shown = cli("queues", "show", "mail").out.splitlines()
    assert {"rate       2/s, bursts of 10", "for keys   0"} <= set(shown)
    assert json.loads(cli("queues", "show", "mail", "--json").out) == MAIL


@pytest.mark.parametrize("order", ["pause", "resume"])
def test_queue_is_shown_as_it_is_after_the_order(api: FakeApi, cli: Cli, order: str) -> None:
    api.answer("POST", f"/queues/mail/{order}", MAIL)
    assert "state      paused" in cli("queue", order, "mail").out


def test_workflows_are_listed_with_what_they_take(api: FakeApi, cli: Cli) -> None:
    schema = {"properties": {"folder": {"type": "string"}}, "required": ["folder"]}
    one = {"name": "report", "digest": "d", "steps": 4, "served": True, "parameters": schema}
    api.answer("GET", "/workflows", {"workflows": [one, one | {"name": "old", "served": False}]})
    assert [line.split() for line in cli("workflows", "list").out.splitlines()[1:]] == [
        ["report", "4", "yes", "folder", "(text,", "needed)"],
        ["old", "4", "no", "folder", "(text,", "needed)"],
    ]
    assert cli("workflow", "list", "-q").out == "report\nold\n"


GOOD = """
from hopline import step, workflow

@step
def double(number: int) -> int:
    return 2 * number

@step
def numbers(count: int) -> list[int]:
    return list(range(count))

@workflow
def inner(count: int) -> list[int]:
    return double.map(numbers(count))

@workflow
def outer(count: int) -> list[int]:
    return inner(count)
"""


@pytest.fixture
def files(folder: Path) -> Path:
    (folder / "good.py").write_text(GOOD)
    (folder / "broken.py").write_text("def (\n")
    (folder / "missing.py").write_text("import surely_not_installed\n")
    return folder


def test_check_lists_sound_workflows_with_their_size(files: Path, hopline: Cli) -> None:
    done = hopline("workflows", "check", "good.py")
    assert done.out.splitlines() == [" ✔ inner  2 steps  2 levels", " ✔ outer  1 step  1 level"]


def test_check_names_place_problem_and_hint_of_what_is_wrong(files: Path, hopline: Cli) -> None:
    done = hopline("workflows", "check", "good.py", "broken.py", "missing.py", code=ExitCode.FAILED)
    assert " ✖ broken.py:1  syntax-error" in done.out
    assert " ✖ missing.py:1  import-error" in done.out
    assert "hint: install 'surely_not_installed'" in done.out


def test_check_as_json_is_for_programs(files: Path, hopline: Cli) -> None:
    done = hopline("workflows", "check", "broken.py", "--json", code=ExitCode.FAILED)
    assert [error["code"] for error in json.loads(done.out)["errors"]] == ["syntax-error"]


def test_check_changes_nothing(files: Path, hopline: Cli) -> None:
    before = sorted(path.name for path in files.iterdir())
    hopline("workflows", "check", ".")
    assert sorted(path.name for path in files.iterdir() if path.name != "__pycache__") == before


def test_graph_of_a_file_draws_the_workflow_that_no_other_runs(files: Path, hopline: Cli) -> None:
    assert hopline("workflows", "graph", "good.py").out == "outer\n  inner  [workflow inner]\n"


def test_graph_of_a_named_workflow_in_every_format(files: Path, hopline: Cli) -> None:
    text = hopline("workflows", "graph", "good.py:inner")
    assert text.out == "inner\n  numbers\n  └─▶ double  [for each]\n"
    assert "n0 --> n1" in hopline("workflows", "graph", "good.py:inner", "--format", "mermaid").out
    assert '"numbers" -> "double";' in hopline("workflows", "graph", "good.py:inner", "--format", "dot").out
    as_json = hopline("workflows", "graph", "good.py:inner", "--json").out
    assert as_json == hopline("workflows", "graph", "good.py:inner", "--format", "json").out
    assert json.loads(as_json)["edges"] == [["numbers", "double"]]


def test_graph_of_a_broken_file_is_its_error(files: Path, hopline: Cli) -> None:
    done = hopline("workflows", "graph", "broken.py", code=ExitCode.FAILED)
    assert done.out == ""
    assert done.err.startswith("error[syntax-error]: ")


def test_graph_of_a_mistyped_workflow_names_the_nearest(files: Path, hopline: Cli) -> None:
    done = hopline("workflows", "graph", "good.py:iner", code=ExitCode.NOT_FOUND)
    assert "hint: did you mean inner?" in done.err


def test_graph_of_a_registered_workflow_comes_from_the_server(api: FakeApi, cli: Cli) -> None:
    definition = {"name": "etl", "nodes": [{"id": "a", "kind": "http", "inputs": {}, "after": []}]}
    api.answer("GET", "/workflows/etl", {"name": "etl", "parameters": {}, "definition": definition})
    assert cli("workflows", "graph", "etl").out == "etl\n  a  [http]\n"
