"""``hopline queues`` and ``hopline tasks`` in gcloud's words, against a running service."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hopline_cli.errors import ExitCode
from tests.cli.conftest import Cli
from tests.support.queue_service import RunningService, running_service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    with running_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def cli(cli: Cli, service: RunningService, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run commands that talk to the service."""
    monkeypatch.setenv("HOPLINE_SERVER_URL", service.url)
    return cli


def told(cli: Cli, *arguments: str) -> Any:
    outcome = cli(*arguments)
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_a_queue_is_made_changed_described_and_deleted(cli: Cli) -> None:
    flags = ("--max-attempts", "unlimited", "--max-backoff", "1h", "--max-dispatches-per-second", "2.5")
    overrides = (
        "--http-uri-override",
        "host:example.com,port:8080,mode:if-not-exists",
        "--http-header-override",
        "A: b",
    )

    made = cli("queues", "create", "mail", *flags, *overrides)

    assert (made.code, made.err) == (0, "Created queue [local/mail].\n")
    queue = told(cli, "queues", "describe", "mail")
    assert queue["name"] == "projects/local/locations/local/queues/mail"
    assert queue["retryConfig"]["maxAttempts"] == -1
    assert queue["retryConfig"]["maxBackoff"] == "3600s"
    assert queue["rateLimits"]["maxDispatchesPerSecond"] == 2.5
    assert queue["httpTarget"]["uriOverride"]["port"] == "8080"
    assert queue["httpTarget"]["headerOverrides"] == [{"header": {"key": "A", "value": "b"}}]
    assert "mail" in cli("queues", "list", "-q").out.split()

    changed = told(cli, "queues", "update", "mail", "--max-attempts", "3", "--clear-max-backoff", "--json")
    assert changed["retryConfig"]["maxAttempts"] == 3
    assert changed["rateLimits"]["maxDispatchesPerSecond"] == 2.5
    assert cli("queues", "pause", "mail").code == 0
    assert told(cli, "queues", "describe", "mail")["state"] == "PAUSED"
    assert cli("queues", "delete", "mail", "--yes").err == "Deleted queue [local/mail].\n"
    gone = cli("queues", "describe", "mail")
    assert gone.code == ExitCode.NOT_FOUND
    assert "error[not-found]: Queue does not exist." in gone.err


def test_an_update_must_change_something_that_is_there(cli: Cli) -> None:
    nothing = cli("queues", "update", "mail")
    assert (nothing.code, "Must specify at least one field to update." in nothing.err) == (ExitCode.USAGE, True)
    assert cli("queues", "update", "nobody", "--max-attempts", "3").code == ExitCode.NOT_FOUND
    both = cli("queues", "update", "mail", "--max-attempts", "3", "--clear-max-attempts")
    assert "cannot be given together" in both.err


def test_a_purge_asks_before_it_deletes(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    cli("queues", "create", "full", "--location", "here")
    cli("queues", "pause", "full", "--location", "here")
    cli("tasks", "create-http-task", "--queue", "full", "--location", "here", "--url", "http://x")
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))

    assert cli("queues", "purge", "full", "--location", "here").code == ExitCode.INTERRUPTED
    assert len(told(cli, "tasks", "list", "--queue", "full", "--location", "here", "--json")) == 1
    assert cli("queues", "purge", "full", "--location", "here", "-y").code == 0
    assert told(cli, "tasks", "list", "--queue", "full", "--location", "here", "--json") == []


def test_tasks_are_made_listed_described_and_deleted(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"\xff")
    cli("queues", "create", "work")
    cli("queues", "pause", "work")

    made = cli(
        *("tasks", "create-http-task", "one", "--queue", "work", "--url", "http://x", "--method", "put"),
        *("--header", "A: b", "--body-file", str(tmp_path / "body"), "--schedule-time", "2026-11-20T08:00:00Z"),
    )
    cli("tasks", "create-app-engine-task", "two", "--queue", "work", "--routing", "service:mail")

    assert made.err == "Created task [local/work/one].\n"
    assert cli("tasks", "list", "--queue", "work", "-q").out.split() == ["one", "two"]
    rows = [line.split() for line in cli("tasks", "list", "--queue", "work").out.splitlines()]
    assert rows[0][:2] == ["TASK_NAME", "TYPE"]
    assert (rows[1][:2], rows[2][:2]) == (["one", "http"], ["two", "app-engine"])
    task = told(cli, "tasks", "describe", "one", "--queue", "work", "--response-view", "full")
    assert (task["httpRequest"]["body"], task["httpRequest"]["httpMethod"]) == ("/w==", "PUT")
    assert told(cli, "tasks", "describe", task["name"]) == {**task, "httpRequest": {**task["httpRequest"]}} | {
        "view": "BASIC",
        "httpRequest": {key: value for key, value in task["httpRequest"].items() if key != "body"},
    }
    assert cli("tasks", "delete", "one", "--queue", "work").err == "Deleted task [one].\n"
    assert "which queue is task 'one' in?" in cli("tasks", "delete", "one").err


def test_pull_tasks_are_leased_renewed_and_acknowledged(cli: Cli) -> None:
    cli("queues", "create", "pulled", "--type", "pull", "--max-attempts", "unlimited")
    cli("tasks", "create-pull-task", "--queue", "pulled", "--tag", "a b", "--payload-content", "hello")

    (task,) = told(cli, "tasks", "lease", "--queue", "pulled", "--lease-duration", "60", "--tag", "a b")
    assert task["pullMessage"]["payload"] == "aGVsbG8="
    lease = ("--schedule-time", task["scheduleTime"])
    renewed = told(cli, "tasks", "renew-lease", task["name"], *lease, "--lease-duration", "90", "--json")
    assert cli("tasks", "acknowledge", task["name"], *lease).code == ExitCode.FAILED
    done = cli("tasks", "acknowledge", task["name"], "--schedule-time", renewed["scheduleTime"])
    assert done.code == 0, done.err
    assert told(cli, "tasks", "lease", "--queue", "pulled", "--lease-duration", "60", "--oldest-tag") == []


def test_dead_tasks_are_listed_and_run_again(cli: Cli) -> None:
    cli("queues", "create", "short", "--max-attempts", "1")
    cli("tasks", "create-http-task", "doomed", "--queue", "short", "--url", "http://127.0.0.1:9/")
    dead: list[Any] = []
    for _ in range(500):
        dead = told(cli, "tasks", "list", "--queue", "short", "--dead", "--json")
        if dead:
            break

    assert [task["name"].rpartition("/")[2] for task in dead] == ["doomed"]
    assert told(cli, "tasks", "attempts", "doomed", "--queue", "short")[0]["number"] == 1
    assert cli("tasks", "run", "doomed", "--queue", "short", "--dead").code == 0


def test_statistics_say_how_many_tasks_wait(cli: Cli) -> None:
    cli("queues", "create", "counted")
    cli("queues", "pause", "counted")
    cli("tasks", "create-http-task", "--queue", "counted", "--url", "http://x")

    assert told(cli, "queues", "stats", "counted")["tasksCount"] == "1"
