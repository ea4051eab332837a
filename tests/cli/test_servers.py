"""Which server a command talks to, and what it says when there is none."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from hopline_cli.errors import ExitCode
from hopline_engine.store.lock import ProcessLock
from tests.cli.conftest import Cli, Start
from tests.cli.fake_api import FakeApi, serving

QUEUES = ("queues", "list", "-q")


@pytest.fixture
def quiet(folder: Path) -> Iterator[FakeApi]:
    """A server that nothing points to yet."""
    with serving(FakeApi()) as fake:
        fake.answer("GET", "/queues", {"queues": []})
        yield fake


def leave_address(folder: Path, url: str) -> None:
    (folder / ".hopline").mkdir()
    (folder / ".hopline" / "server.json").write_text(json.dumps({"url": url, "pid": 1}))


def test_flag_goes_before_environment_before_the_server_file(
    quiet: FakeApi, folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_address(folder, "http://127.0.0.1:9")
    monkeypatch.setenv("HOPLINE_SERVER_URL", "http://127.0.0.1:9")
    assert cli(*QUEUES, "--server", quiet.url).code == 0
    monkeypatch.setenv("HOPLINE_SERVER_URL", quiet.url + "/")
    assert cli(*QUEUES).code == 0


def test_server_that_runs_on_the_store_is_found_by_its_file(quiet: FakeApi, folder: Path, cli: Cli) -> None:
    leave_address(folder, quiet.url)
    assert cli(*QUEUES).code == 0
    assert quiet.asked_for("GET", "/queues") == [{}]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"url": 5}', '{"url": "nonsense"}', '{"url": "http://127.0.0.1:9"}']
)
def test_file_of_a_server_that_is_gone_counts_for_nothing(folder: Path, cli: Cli, content: str) -> None:
    leave_address(folder, "")
    (folder / ".hopline" / "server.json").write_text(content)
    done = cli(*QUEUES)
    assert done.code == ExitCode.NO_SERVER
    assert done.err == (
        "error[no-store]: no server is up, and there is no store at .hopline/hopline.db\n"
        "hint: begin with: hopline run FILE, or name a server with --server URL\n"
    )


def test_looking_where_nothing_is_leaves_nothing_behind(folder: Path, cli: Cli) -> None:
    assert cli("runs", "list").code == ExitCode.NO_SERVER
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://no-such-host.invalid", "nonsense"])
def test_named_server_that_does_not_answer_is_an_error_of_its_own(folder: Path, cli: Cli, url: str) -> None:
    done = cli(*QUEUES, "--server", url)
    assert done.code == ExitCode.NO_SERVER
    assert done.err.startswith(f"error[server-unreachable]: no server answers at {url}")


def test_token_of_the_settings_is_sent(quiet: FakeApi, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet.token = "s3cret"
    refused = cli(*QUEUES, "--server", quiet.url)
    assert refused.code == ExitCode.NOT_ALLOWED
    assert "hint: set HOPLINE_API_TOKEN" in refused.err
    monkeypatch.setenv("HOPLINE_API_TOKEN", "s3cret")
    assert cli(*QUEUES, "--server", quiet.url).code == 0


def test_setting_that_cannot_be_is_named(folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOPLINE_PORT", "many")
    done = cli(*QUEUES)
    assert done.code == ExitCode.USAGE
    assert "error[settings]: setting 'port'" in done.err


def test_proxy_of_the_environment_is_not_asked_for_this_machine(
    quiet: FakeApi, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert cli(*QUEUES, "--server", quiet.url).code == 0


def test_open_address_without_token_is_refused(folder: Path, cli: Cli) -> None:
    done = cli("serve", "--host", "0.0.0.0")
    assert done.code == ExitCode.USAGE
    assert done.err.startswith("error[token-needed]: listening on 0.0.0.0 would open the API")
    assert not (folder / ".hopline").exists()


def test_traceback_is_for_those_who_ask(api: FakeApi, cli: Cli) -> None:
    api.refuse("GET", "/queues", 409, "odd", "odd")
    assert "Traceback" not in cli(*QUEUES).err
    assert "Traceback" in cli(*QUEUES, "--debug").err


def test_bug_is_told_in_one_line_with_the_way_to_its_traceback(api: FakeApi, cli: Cli) -> None:
    api.answer("GET", "/queues", {"unexpected": 1})
    done = cli(*QUEUES)
    assert done.code == ExitCode.FAILED
    assert done.err.splitlines() == [
        "error[internal]: KeyError: 'queues'",
        "hint: this is a bug in hopline; the same command with --debug shows where",
    ]


def test_colour_is_for_terminals_that_want_it(api: FakeApi, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    api.refuse("GET", "/queues", 409, "odd", "odd")
    assert "\x1b[" in cli(*QUEUES).err
    assert "\x1b[" not in cli(*QUEUES, "--no-color").err
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in cli(*QUEUES).err


def test_port_that_is_taken_is_told(quiet: FakeApi, folder: Path, hopline: Cli) -> None:
    done = hopline("serve", "--port", quiet.url.rpartition(":")[2], code=ExitCode.FAILED)
    assert done.err.startswith("error[cannot-listen]: cannot listen on port ")
    assert not (folder / ".hopline" / "server.json").exists()


def test_server_that_is_busy_is_waited_for(quiet: FakeApi, cli: Cli) -> None:
    quiet.busy_seconds = 2.5  # more is not needed to tell it from one that is asked for two seconds
    assert cli(*QUEUES, "--server", quiet.url).code == 0


def test_store_that_another_process_has_and_does_not_answer_for_is_waited_for_and_that_is_said(
    folder: Path, start: Start
) -> None:
    (folder / ".hopline").mkdir()
    (folder / ".hopline" / "hopline.db").touch()
    holder = ProcessLock(folder / ".hopline" / "hopline.db")
    command = start("runs", "list")
    command.wait_for(f"hopline.db is in use by process {os.getpid()}; waiting until that answers or ends\n")
    holder.release()
    assert command.end().code == 0


def test_server_waits_for_a_command_that_has_the_store_and_can_be_stopped_meanwhile(folder: Path, start: Start) -> None:
    (folder / ".hopline").mkdir()
    (folder / "wf.py").touch()
    holder = ProcessLock(folder / ".hopline" / "hopline.db")
    servers = [start(*words, "--port", "0") for words in (["serve"], ["dev", "wf.py"])]
    for server in servers:
        server.wait_for(f"hopline.db is in use by process {os.getpid()}; waiting until that answers or ends\n")
    serving, developing = servers
    developing.process.send_signal(signal.SIGINT)
    assert developing.end().code == 0
    holder.release()
    serving.wait_for("serving .hopline/hopline.db at ")


def test_folder_that_cannot_be_used_is_told(folder: Path, hopline: Cli) -> None:
    (folder / "taken").write_text("a file")
    done = hopline("serve", "--port", "0", code=ExitCode.FAILED, HOPLINE_STATE_DIR="taken/below")
    assert "error[state-dir]: cannot use taken" in done.err
    assert "hint: name another folder with HOPLINE_STATE_DIR" in done.err
