"""``hopline run`` against a server that is up: what it registers, sends, shows and exits with."""

import json
import signal
from pathlib import Path

import pytest

from hopline_cli import server, starting
from hopline_cli.errors import ExitCode
from tests.cli.conftest import Cli, Start
from tests.cli.fake_api import FakeApi, a_run, a_step
from tests.support.waiting import WITHIN

FILE = """
from hopline import step, workflow

@step
def double(number: int) -> int:
    return 2 * number

@workflow
def inner(number: int) -> int:
    return double(number)

@workflow
def outer(number: int, label: str = "x") -> int:
    return inner(number)
"""
RUNNING = a_run("r_1", "running", a_step("double", "running"), workflow="outer")
DONE = a_run("r_1", "succeeded", a_step("double"), workflow="outer", result=14)


@pytest.fixture
def served(api: FakeApi, folder: Path) -> FakeApi:
    (folder / "wf.py").write_text(FILE)
    api.to_start = RUNNING
    api.events["r_1"] = [("snapshot", DONE)]
    return api


def test_run_registers_the_file_starts_the_root_and_prints_the_result(served: FakeApi, cli: Cli) -> None:
    done = cli("run", "wf.py", "number=7")
    assert (done.code, done.out) == (0, "14\n")
    assert served.asked_for("POST", "/runs") == [{"workflow": "outer", "input": {"number": 7}, "idempotency_key": None}]
    assert set(served.definitions) == {"inner", "outer"}


def test_worker_is_gone_when_the_run_is(served: FakeApi, cli: Cli) -> None:
    cli("run", "wf.py", "number=7")
    assert served.workers == {}
    assert [path for method, path, _ in served.asked if method == "DELETE"]


def test_named_workflow_and_key_are_sent(served: FakeApi, cli: Cli) -> None:
    cli("run", "wf.py:inner", "number=7", "--key", "order-17")
    assert served.asked_for("POST", "/runs") == [
        {"workflow": "inner", "input": {"number": 7}, "idempotency_key": "order-17"}
    ]


def test_priority_is_sent_where_there_is_one_and_has_its_range(served: FakeApi, cli: Cli) -> None:
    cli("run", "wf.py", "number=7", "--priority", "-3")
    assert [body["priority"] for body in served.asked_for("POST", "/runs")] == [-3]
    refused = cli("run", "wf.py", "number=7", "--priority", "6")
    assert refused.code == ExitCode.USAGE
    assert "Input should be less than or equal to 5" in refused.err


def test_key_that_has_a_run_is_said(served: FakeApi, cli: Cli) -> None:
    served.answer("POST", "/runs", RUNNING, 200)
    assert "key order-17 has a run already: r_1" in cli("run", "wf.py", "number=7", "--key", "order-17").err


def test_json_prints_the_whole_run(served: FakeApi, cli: Cli) -> None:
    run = json.loads(cli("run", "wf.py", "number=7", "--json").out)
    assert (run["id"], run["result"], "steps" in run) == ("r_1", 14, False)


def test_failed_run_exits_with_3_and_prints_no_result(served: FakeApi, cli: Cli) -> None:
    failed = a_run("r_1", "failed", error={"step": None, "type": "X", "message": "no"})
    served.events["r_1"] = [("snapshot", failed)]
    done = cli("run", "wf.py", "number=7")
    assert (done.code, done.out) == (ExitCode.RUN_FAILED, "")
    assert "error[run-failed]: X: no" in done.err


def test_name_of_a_served_workflow_runs_without_a_file(served: FakeApi, cli: Cli) -> None:
    served.answer("GET", "/workflows/etl", {"name": "etl", "parameters": {}, "definition": {}})
    assert cli("run", "etl").code == 0
    assert served.asked_for("POST", "/runs")[0]["workflow"] == "etl"
    assert served.workers == {}


def test_server_that_is_started_together_with_the_command_is_waited_for(
    served: FakeApi, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.answer("GET", "/workflows/etl", {"name": "etl", "parameters": {}, "definition": {}})
    found = iter([None, None])

    async def look(_: object) -> str | None:
        return next(found, served.url)

    monkeypatch.setattr(server, "server_found", look)
    monkeypatch.setattr(starting, "COMING_SECONDS", WITHIN)
    done = cli("run", "etl")
    assert (done.code, done.out) == (0, "14\n")
    assert "no server is up yet; waiting for one" in done.err


@pytest.mark.parametrize(
    "name, hint", [("etl", "give the file of the workflow"), ("list", "did you mean: hopline runs list")]
)
def test_name_of_a_workflow_without_a_server_is_refused_and_leaves_the_store_alone(
    folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, name: str, hint: str
) -> None:
    monkeypatch.setattr(starting, "COMING_SECONDS", 0.0)
    done = cli("run", name)
    assert done.code == ExitCode.USAGE
    assert f"hint: {hint}" in done.err
    assert list(folder.iterdir()) == []


def test_detach_prints_the_id_and_leaves(served: FakeApi, cli: Cli) -> None:
    served.events["r_1"] = [("snapshot", RUNNING)]
    done = cli("run", "wf.py", "number=7", "--detach")
    assert (done.code, done.out) == (0, "r_1\n")
    assert "watch it with: hopline runs watch r_1" in done.err


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["nofile.py"], 2, ["error[file-not-found]: there is no file nofile.py"]),
        ([f"{'n' * 5000}.py"], 2, ["error[cannot-use]: 'nnn", "n' cannot be used: File name too long"]),
        (["wf.py:outer", "number=1", "label=\udcff"], 2, ["error[usage]: '\\udcff' is no character"]),
        (["wf.py:outer", "number=1e999"], 2, ["error[usage]: this cannot be sent as JSON"]),
        (["fw.py"], 2, ["hint: did you mean wf.py?"]),
        (["wf.py:outr", "number=1"], 5, ["error[workflow-not-found]", "hint: did you mean outer?"]),
        (["wf.py"], 2, ["error[input]: missing parameter number", "hint: parameters: number (integer, needed)"]),
        (["wf.py", "numbr=1"], 2, ["there is no parameter numbr; did you mean number?"]),
        (["wf.py", "number"], 2, ["'number' is not of the form name=value"]),
    ],
)
def test_bad_input_is_told_and_starts_nothing(
    served: FakeApi, cli: Cli, words: list[str], code: int, said: list[str]
) -> None:
    done = cli("run", *words)
    assert done.code == code
    assert all(text in done.err for text in said), done.err
    assert served.asked_for("POST", "/runs") == []
    assert served.workers == {}


def test_value_that_the_server_refuses_is_told_with_the_parameters(served: FakeApi, cli: Cli) -> None:
    served.refuse("POST", "/runs", 422, "invalid-input", "input of outer: number: 'x' is not an integer")
    done = cli("run", "wf.py", "number=x")
    assert done.code == ExitCode.USAGE
    assert 'hint: parameters: number (integer, needed), label (text, default "x")' in done.err
    assert done.err.count("hint:") == 1


@pytest.mark.parametrize(
    "content, code, said",
    [
        ("def (\n", "syntax-error", "wf.py:1"),
        ("import surely_not_installed\n", "import-error", "surely_not_installed"),
        ("import hopline\n", "no-workflow", "@workflow"),
    ],
)
def test_file_that_does_not_load_is_told_and_registers_nothing(
    served: FakeApi, folder: Path, cli: Cli, content: str, code: str, said: str
) -> None:
    (folder / "wf.py").write_text(content)
    done = cli("run", "wf.py", "number=1")
    assert done.code == ExitCode.FAILED
    assert done.err.startswith(f"error[{code}]: ")
    assert said in done.err
    assert "Traceback" not in done.err
    assert served.definitions == {}


def test_several_workflows_without_a_root_are_listed(served: FakeApi, folder: Path, cli: Cli) -> None:
    (folder / "wf.py").write_text(FILE + FILE[FILE.index("@workflow\ndef outer") :].replace("outer", "other"))
    done = cli("run", "wf.py", "number=1")
    assert done.code == ExitCode.USAGE
    assert "error[which-workflow]: the file has 3 workflows: inner, other, outer" in done.err


def test_what_a_file_prints_while_it_loads_is_talk_and_escaped(served: FakeApi, folder: Path, cli: Cli) -> None:
    (folder / "wf.py").write_text("print('loading \\x1b[31mhard')\n" + FILE)
    done = cli("run", "wf.py", "number=7")
    assert done.out == "14\n"
    assert "loading \\x1b[31mhard" in done.err


def test_server_with_a_token_takes_the_worker_too(served: FakeApi, cli: Cli, folder: Path) -> None:
    served.token = "s3cret"
    (folder / "hopline.toml").write_text('api_token = "s3cret"\n')
    assert cli("run", "wf.py", "number=7").code == 0


def test_ctrl_c_detaches_and_says_how_to_come_back(served: FakeApi, start: Start) -> None:
    served.events["r_1"] = [("snapshot", RUNNING)]
    command = start("run", "wf.py", "number=7")
    command.wait_for("r_1  outer  begins")
    command.process.send_signal(signal.SIGINT)
    done = command.end()
    assert (done.code, done.out) == (ExitCode.INTERRUPTED, "")
    assert f"detached; r_1 goes on at {served.url}; come back with: hopline runs watch r_1 wf.py" in done.err
    assert served.workers == {}


def test_server_that_stops_before_the_run_began_is_left_for_the_next(
    served: FakeApi, folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOPLINE_SERVER_URL")
    (folder / ".hopline").mkdir()
    (folder / ".hopline" / "server.json").write_text(json.dumps({"url": served.url, "pid": 1}))
    served.refuse("POST", "/runs", 503, "engine-stopping", "the engine is not running")
    served.once.add(("POST", "/runs"))
    done = cli("run", "wf.py", "number=7")
    assert (done.code, done.out) == (0, "14\n")
    assert f"the server at {served.url} is gone; going on without it" in done.err


def test_server_that_restarts_in_the_middle_is_followed_again(served: FakeApi, cli: Cli) -> None:
    served.restarts = 2
    assert cli("run", "wf.py", "number=7").out == "14\n"
