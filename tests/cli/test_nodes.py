"""Several servers that share one store, as the command line sees them."""

import json
from pathlib import Path

import pytest

from hopline_cli import client
from hopline_cli.errors import ExitCode
from tests.cli.conftest import Cli, Start
from tests.cli.fake_api import T0, FakeApi, a_run, a_step, at
from tests.cli.test_end_to_end import FILE
from tests.support.postgres import database, empty_database

pytestmark = pytest.mark.anyio

NODES = [
    {"id": "ab12", "url": "http://10.0.0.1:8484", "epoch": 3, "shards": 32, "started_at": T0, "heartbeat_at": at(9)},
    {"id": "cd34", "url": None, "epoch": 4, "shards": 0, "started_at": T0, "heartbeat_at": at(8)},
]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MOVING_PAUSE_SECONDS", 0.01)


def test_nodes_are_listed_with_their_part_of_the_work(api: FakeApi, cli: Cli) -> None:
    api.answer("GET", "/nodes", {"nodes": NODES})
    head, first, second = (line.split() for line in cli("nodes", "list").out.splitlines())
    assert head == ["NODE", "URL", "EPOCH", "SHARDS", "STARTED", "HEARD"]
    assert first == ["ab12", "http://10.0.0.1:8484", "3", "32", T0, at(9)]
    assert second == ["cd34", "-", "4", "0", T0, at(8)]
    assert cli("nodes", "list", "-q").out == "ab12\ncd34\n"
    assert json.loads(cli("nodes", "list", "--json").out) == NODES


@pytest.mark.parametrize("code", ["run-moving", "node-unreachable", "no-shard", "still-loading"])
def test_what_is_a_matter_of_seconds_is_asked_for_again(api: FakeApi, cli: Cli, code: str) -> None:
    for method, path in (("GET", "/runs/r_1"), ("POST", "/runs/r_1/cancel")):
        api.refuse(method, path, 503, code, "not now")
        api.once.add((method, path))
    api.then("GET", "/runs/r_1", a_run("r_1"))
    api.then("POST", "/runs/r_1/cancel", a_run("r_1", "cancelled"))
    assert "state     succeeded" in cli("runs", "show", "r_1").out
    assert cli("runs", "cancel", "r_1").out == "r_1\n"
    assert len(api.asked_for("POST", "/runs/r_1/cancel")) == 2


def test_run_between_two_nodes_is_followed_when_it_has_arrived(api: FakeApi, cli: Cli) -> None:
    api.answer("GET", "/runs/r_1", a_run("r_1", "running"))
    api.refuse("GET", "/runs/r_1/events", 503, "run-moving", "not now")
    api.once.add(("GET", "/runs/r_1/events"))
    api.events["r_1"] = [("snapshot", a_run("r_1", "succeeded", a_step("a"), result=14))]
    assert cli("runs", "watch", "r_1").out == "14\n"


def test_run_that_no_node_takes_up_is_given_up_after_a_while(
    api: FakeApi, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "MOVING_SECONDS", 0.05)
    api.refuse("GET", "/runs/r_1", 503, "run-moving", "run r_1 is on its way", "ask again in a few seconds")
    done = cli("runs", "show", "r_1")
    assert done.code == ExitCode.FAILED
    assert done.err == "error[run-moving]: run r_1 is on its way\nhint: ask again in a few seconds\n"
    assert len(api.asked_for("GET", "/runs/r_1")) > 1


def test_other_trouble_of_a_server_is_told_at_once(api: FakeApi, cli: Cli) -> None:
    api.refuse("GET", "/runs/r_1", 503, "store-unavailable", "the disk is full")
    assert cli("runs", "show", "r_1").code == ExitCode.FAILED
    assert len(api.asked_for("GET", "/runs/r_1")) == 1


def test_second_server_on_one_file_is_refused_with_what_to_do(folder: Path, start: Start, hopline: Cli) -> None:
    start("serve", "--port", "0").wait_for("serving .hopline/hopline.db at ")
    second = hopline("serve", "--port", "0", code=ExitCode.FAILED)
    assert second.err.startswith("error[store-locked]: ")
    assert "hint: " in second.err


def test_lone_server_lists_itself_with_all_shards(folder: Path, start: Start, hopline: Cli) -> None:
    start("serve", "--port", "0").wait_for("serving .hopline/hopline.db at ")
    (node,) = json.loads(hopline("nodes", "list", "--json").out)
    assert (node["shards"], node["epoch"]) == (64, 1)


async def test_server_of_a_shared_database_is_found_without_its_address(folder: Path, start: Start) -> None:
    async with database() as store:
        (folder / "server").mkdir()
        serving = start("serve", "--port", "0", HOPLINE_STORE=store, HOPLINE_STATE_DIR="server")
        serving.wait_for("/api/v1")
        listed = start("nodes", "list", "--json", HOPLINE_STORE=store, HOPLINE_STATE_DIR="elsewhere").end()
        (node,) = json.loads(listed.out)  # the command did not become a node itself
        assert node["url"] in serving.err
        (folder / "wf.py").write_text(FILE)
        done = start("run", "wf.py", HOPLINE_STORE=store, HOPLINE_STATE_DIR="elsewhere").end()
        assert (done.code, done.out) == (0, "14\n")
        serving.process.terminate()
        serving.end()


async def test_shared_database_without_a_server_is_looked_at_by_the_command_itself(folder: Path, start: Start) -> None:
    async with empty_database() as store:
        assert start("runs", "list", HOPLINE_STORE=store).end().err == "no runs\n"
