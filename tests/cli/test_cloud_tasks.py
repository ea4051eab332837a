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


def test_policies_are_shown_replaced_and_changed(cli: Cli, tmp_path: Path) -> None:
    cli("queues", "create", "guarded")
    binding = ("--member", "user:a@example.com", "--role", "roles/cloudtasks.enqueuer")

    added = cli("queues", "add-iam-policy-binding", "guarded", *binding)

    assert added.err == "Updated IAM policy for queue [local/guarded].\n"
    policy = told(cli, "queues", "get-iam-policy", "guarded")
    assert policy == json.loads(added.out)
    assert policy["bindings"] == [{"role": "roles/cloudtasks.enqueuer", "members": ["user:a@example.com"]}]
    (tmp_path / "old").write_text(json.dumps(policy))
    removed = told(cli, "queues", "remove-iam-policy-binding", "guarded", *binding)
    assert removed.keys() == {"etag"}
    assert cli("queues", "remove-iam-policy-binding", "guarded", *binding).code == ExitCode.FAILED
    late = cli("queues", "set-iam-policy", "guarded", str(tmp_path / "old"))
    assert "error[aborted]: There were concurrent policy changes." in late.err
    (tmp_path / "new").write_text(json.dumps({"bindings": policy["bindings"]}))
    replaced = told(cli, "queues", "set-iam-policy", "guarded", str(tmp_path / "new"))
    assert replaced["bindings"] == policy["bindings"]


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_policy_must_be_a_json_object(cli: Cli, tmp_path: Path, content: str) -> None:
    (tmp_path / "policy").write_text(content)

    assert cli("queues", "set-iam-policy", "any", str(tmp_path / "policy")).code == ExitCode.USAGE
    assert cli("queues", "set-iam-policy", "any", str(tmp_path / "nothing")).code == ExitCode.USAGE


def test_many_tasks_are_made_from_a_file_and_deleted_together(cli: Cli, tmp_path: Path) -> None:
    cli("queues", "create", "bulk")
    cli("queues", "pause", "bulk")
    file = tmp_path / "tasks.json"
    named = [{"name": f"t{number}", "httpRequest": {"url": "http://x"}} for number in range(150)]
    file.write_text(json.dumps(named))
    create = ("tasks", "batch-create", "--queue", "bulk", "--tasks-from-file", str(file))

    tried = told(cli, *create, "--dry-run")
    made = cli(*create)

    assert tried[0]["name"] == "projects/local/locations/local/queues/bulk/tasks/t0"
    assert (made.code, made.err) == (0, "Created 150 of 150 tasks.\n")
    assert len(cli("tasks", "list", "--queue", "bulk", "-q").out.split()) == 150
    file.write_text(json.dumps([*named[:1], {"httpRequest": {"url": "http://new"}}]))
    some = cli(*create, "--failed-tasks-file", str(tmp_path / "failed"), "--json")
    assert some.code == 2
    assert "Created 1 of 2 tasks." in some.err
    assert [task["httpRequest"]["url"] for task in json.loads(some.out)["tasks"]] == ["http://new"]
    (failed,) = json.loads((tmp_path / "failed").read_text())
    assert (failed["index"], failed["status"]["code"]) == (0, 6)
    file.write_text(json.dumps(named[:2]))
    assert cli(*create).code == ExitCode.FAILED, "all failed"
    deleted = cli("tasks", "batch-delete", "t0", "t1", tried[2]["name"], "--queue", "bulk")
    assert (deleted.code, deleted.err) == (0, "Deleted 3 of 3 tasks.\n")
    again = cli("tasks", "batch-delete", "t0", "t3", "--queue", "bulk")
    assert (again.code, "Deleted 1 of 2 tasks." in again.err) == (2, True)
    assert cli("tasks", "batch-delete", "t0", "--queue", "bulk").code == ExitCode.FAILED


@pytest.mark.parametrize("content", ["", "{}", "[]", "[1]"])
def test_a_file_of_tasks_must_be_a_list_of_them(cli: Cli, tmp_path: Path, content: str) -> None:
    (tmp_path / "tasks").write_text(content)

    done = cli("tasks", "batch-create", "--queue", "any", "--tasks-from-file", str(tmp_path / "tasks"))

    assert done.code == ExitCode.USAGE


def test_locations_are_listed_and_described(cli: Cli) -> None:
    cli("queues", "create", "somewhere", "--location", "europe-west1")

    assert {"local", "europe-west1"} <= set(cli("locations", "list", "-q").out.split())
    rows = [line.split() for line in cli("locations", "list").out.splitlines()]
    assert rows[0] == ["NAME", "FULL_NAME"]
    assert ["local", "projects/local/locations/local"] in rows
    listed = told(cli, "locations", "list", "--json")
    assert told(cli, "locations", "describe", "europe-west1") in listed
