"""Queues, through the clients that people use."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from hopline_engine import clock
from tests.core.worlds import definition, http_step
from tests.queue_api.conftest import PARENT
from tests.support.queue_service import Client, RunningService, refusal, running_service
from tests.support.waiting import WITHIN

NO_QUEUE = "Queue does not exist. If you just created the queue, wait at least a minute for the queue to initialize."


def seconds(duration: Any) -> float:
    return float(duration.total_seconds())


def test_a_new_queue_runs_with_the_defaults_of_the_original(client: Client, queue_name: str) -> None:
    queue = client.create_queue(parent=PARENT, queue={"name": queue_name})

    assert queue == client.get_queue(name=queue_name)
    assert queue.name == queue_name
    assert queue.state.name == "RUNNING"
    limits, retry = queue.rate_limits, queue.retry_config
    assert limits.max_dispatches_per_second == 500.0
    assert (limits.max_burst_size, limits.max_concurrent_dispatches) == (100, 1000)
    assert (retry.max_attempts, retry.max_doublings) == (100, 16)
    assert (seconds(retry.min_backoff), seconds(retry.max_backoff)) == (0.1, 3600.0)
    if client.version == "v2beta3":
        assert queue.type_.name == "PUSH"
        assert (seconds(queue.task_ttl), seconds(queue.tombstone_ttl)) == (31 * 86400.0, 3600.0)


def test_settings_of_a_new_queue_are_kept(client: Client, queue_name: str) -> None:
    asked = {
        "name": queue_name,
        "rate_limits": {"max_dispatches_per_second": 0.25, "max_concurrent_dispatches": 3},
        "retry_config": {
            "max_attempts": -1,
            "max_retry_duration": Duration(seconds=90, nanos=500_000_000),
            "min_backoff": Duration(seconds=1),
            "max_backoff": Duration(seconds=20),
            "max_doublings": 4,
        },
        "stackdriver_logging_config": {"sampling_ratio": 0.5},
        "state": 2,
    }

    queue = client.create_queue(parent=PARENT, queue=asked)

    assert queue.state.name == "RUNNING", "the state cannot be asked for"
    assert queue.rate_limits.max_dispatches_per_second == 0.25
    assert queue.rate_limits.max_concurrent_dispatches == 3
    assert queue.rate_limits.max_burst_size == 10
    assert queue.retry_config.max_attempts == -1
    assert seconds(queue.retry_config.max_retry_duration) == 90.0, "kept in whole seconds"
    assert queue.retry_config.max_doublings == 4
    assert queue.stackdriver_logging_config.sampling_ratio == 0.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"rate_limits": {"max_dispatches_per_second": 501}},
            "RateLimits.maxDispatchesPerSecond must be less than or equal to 500.",
        ),
        (
            {"rate_limits": {"max_dispatches_per_second": -1}},
            "RateLimits.maxDispatchesPerSecond cannot be negative.",
        ),
        (
            {"rate_limits": {"max_concurrent_dispatches": 5001}},
            "RateLimits.maxConcurrentDispatches must be less than or equal to 5000.",
        ),
        (
            {"rate_limits": {"max_concurrent_dispatches": -1}},
            "RateLimits.maxConcurrentDispatches cannot be negative.",
        ),
        ({"retry_config": {"max_attempts": -2}}, "RetryConfig.maxAttempts must be greater or equal to -1."),
        ({"retry_config": {"max_doublings": -1}}, "RetryConfig.maxDoublings cannot be negative."),
        ({"retry_config": {"min_backoff": Duration(seconds=-1)}}, "RetryConfig.minBackoff cannot be negative."),
        (
            {"retry_config": {"min_backoff": Duration(seconds=5), "max_backoff": Duration(seconds=4)}},
            "RetryConfig.minBackoff must be less than or equal to RetryConfig.maxBackoff.",
        ),
        ({"http_target": {"uri_override": {"host": ""}}}, "UriOverride.host must not be empty."),
        *(
            (
                {"http_target": {"uri_override": {"host": host}}},
                "UriOverride.host must be the name or the address of a host, without a port.",
            )
            for host in ("a/b", "a:80", "me@a", "a b", "a\r\nX: y", "a?b")
        ),
        (
            {"http_target": {"header_overrides": [{"header": {"key": "A b", "value": "c"}}]}},
            "HttpTarget.headerOverrides has a key that is not the name of a header.",
        ),
        (
            {"http_target": {"header_overrides": [{"header": {"key": "A", "value": "b\r\nC: d"}}]}},
            "HttpTarget.headerOverrides has a value that contains a line end or NUL.",
        ),
        (
            {"http_target": {"header_overrides": [{"header": {"key": "A", "value": "x" * 82_000}}]}},
            "HttpTarget.headerOverrides must be less than 80KB.",
        ),
    ],
)
def test_a_queue_cannot_have_impossible_settings(
    client: Client, queue_name: str, fields: dict[str, Any], message: str
) -> None:
    if "http_target" in fields and client.is_dated:
        pytest.skip("this client knows no targets of queues")
    assert refusal(client.create_queue, parent=PARENT, queue={"name": queue_name, **fields}) == (
        "INVALID_ARGUMENT",
        message,
    )
    assert refusal(client.get_queue, name=queue_name)[0] == "NOT_FOUND", "nothing is half stored"


def test_a_burst_in_version_two_is_passed_over(rest: Client, queue_name: str) -> None:
    queue = rest.create_queue(parent=PARENT, queue={"name": queue_name, "rate_limits": {"max_burst_size": -5}})

    assert queue.rate_limits.max_burst_size == 100


@pytest.mark.parametrize("name", ["q", f"{PARENT}/queues/under_score", f"{PARENT}/queues/q/", f"{PARENT}/queues/"])
def test_a_queue_must_be_named_as_queues_are(client: Client, name: str) -> None:
    assert refusal(client.create_queue, parent=PARENT, queue={"name": name}) == (
        "INVALID_ARGUMENT",
        'Queue name must be formatted: "projects/<PROJECT_ID>/locations/<LOCATION_ID>/queues/<QUEUE_ID>".',
    )


def test_a_queue_can_be_made_only_once(client: Client, queue_name: str) -> None:
    client.create_queue(parent=PARENT, queue={"name": queue_name})

    assert refusal(client.create_queue, parent=PARENT, queue={"name": queue_name}) == (
        "ALREADY_EXISTS",
        "Queue already exists",
    )


def test_a_queue_that_is_not_there_is_missed_in_the_words_of_the_original(client: Client, queue_name: str) -> None:
    for call in (client.get_queue, client.pause_queue, client.resume_queue, client.purge_queue):
        assert refusal(call, name=queue_name) == ("NOT_FOUND", NO_QUEUE)
    task = {"http_request": {"url": "http://localhost"}}
    assert refusal(client.create_task, parent=queue_name, task=task) == ("NOT_FOUND", NO_QUEUE)
    assert refusal(client.delete_queue, name=queue_name) == ("NOT_FOUND", "Requested entity was not found.")


def test_a_patch_changes_what_its_mask_names_and_clears_what_it_names_and_does_not_give(
    client: Client, queue_name: str
) -> None:
    client.create_queue(
        parent=PARENT,
        queue={
            "name": queue_name,
            "rate_limits": {"max_dispatches_per_second": 5, "max_concurrent_dispatches": 7},
            "retry_config": {"max_attempts": 3, "max_doublings": 2},
        },
    )

    changed = client.update_queue(
        queue={"name": queue_name, "rate_limits": {"max_dispatches_per_second": 9}, "retry_config": {}},
        update_mask=FieldMask(paths=["rate_limits.max_dispatches_per_second", "retry_config.max_attempts"]),
    )

    assert changed.rate_limits.max_dispatches_per_second == 9
    assert changed.rate_limits.max_concurrent_dispatches == 7
    assert changed.retry_config.max_attempts == 100
    assert changed.retry_config.max_doublings == 2
    assert changed == client.get_queue(name=queue_name)


def test_a_patch_of_one_kind_of_token_takes_the_place_of_the_other(rest: Client, queue_name: str) -> None:
    oauth, oidc = ({name: {"service_account_email": "a@b"}} for name in ("oauth_token", "oidc_token"))
    rest.create_queue(parent=PARENT, queue={"name": queue_name, "http_target": oauth})

    mask = FieldMask(paths=["http_target.oidc_token"])
    changed = rest.update_queue(queue={"name": queue_name, "http_target": oidc}, update_mask=mask)

    assert changed.http_target.oidc_token.service_account_email == "a@b"
    assert not changed.http_target.oauth_token.service_account_email


def test_a_patch_without_a_mask_replaces_everything(client: Client, queue_name: str) -> None:
    client.create_queue(parent=PARENT, queue={"name": queue_name, "retry_config": {"max_attempts": 3}})

    changed = client.update_queue(queue={"name": queue_name, "rate_limits": {"max_concurrent_dispatches": 2}})

    assert changed.retry_config.max_attempts == 100
    assert changed.rate_limits.max_concurrent_dispatches == 2


def test_a_patch_makes_a_queue_that_is_not_there(client: Client, queue_name: str) -> None:
    made = client.update_queue(queue={"name": queue_name, "retry_config": {"max_attempts": 4}})

    assert client.get_queue(name=queue_name) == made
    assert made.retry_config.max_attempts == 4


def test_a_patch_can_take_doublings_away_over_grpc(service: RunningService, queue_name: str) -> None:
    client = service.client("grpc")
    client.create_queue(parent=PARENT, queue={"name": queue_name})

    mask = FieldMask(paths=["retry_config.max_doublings"])
    changed = client.update_queue(queue={"name": queue_name, "retry_config": {"max_doublings": 0}}, update_mask=mask)

    assert changed.retry_config.max_doublings == 0
    client.close()


def test_a_mask_with_an_unknown_path_is_refused(client: Client, queue_name: str) -> None:
    client.create_queue(parent=PARENT, queue={"name": queue_name})

    code, message = refusal(client.update_queue, queue={"name": queue_name}, update_mask=FieldMask(paths=["speed"]))

    assert (code, message) == ("INVALID_ARGUMENT", "Invalid field in update mask: speed.")


def test_a_paused_queue_says_so_and_a_resumed_one_runs(client: Client, queue_name: str) -> None:
    client.create_queue(parent=PARENT, queue={"name": queue_name})

    assert client.pause_queue(name=queue_name).state.name == "PAUSED"
    assert client.get_queue(name=queue_name).state.name == "PAUSED"
    assert client.resume_queue(name=queue_name).state.name == "RUNNING"


def test_a_purge_deletes_tasks_and_notes_the_time(client: Client, queue_name: str) -> None:
    client.create_queue(parent=PARENT, queue={"name": queue_name})
    client.pause_queue(name=queue_name)
    for _ in range(3):
        client.create_task(parent=queue_name, task={"http_request": {"url": "http://localhost"}})

    queue = client.purge_queue(name=queue_name)

    assert queue.purge_time is not None
    assert client.list_tasks(parent=queue_name) == []


def test_a_deleted_queue_takes_its_tasks_along_and_its_name_is_free(client: Client, queue_name: str) -> None:
    client.create_queue(parent=PARENT, queue={"name": queue_name})
    client.pause_queue(name=queue_name)
    client.create_task(parent=queue_name, task={"http_request": {"url": "http://localhost"}})

    client.delete_queue(name=queue_name)

    assert refusal(client.get_queue, name=queue_name)[0] == "NOT_FOUND"
    client.create_queue(parent=PARENT, queue={"name": queue_name})
    assert client.list_tasks(parent=queue_name) == []


def test_the_name_of_a_deleted_queue_can_be_held_as_by_the_original(tmp_path: Path, queue_name: str) -> None:
    with running_service(tmp_path, queue_name_hold_seconds=3600) as service:
        client = service.client("rest")
        client.create_queue(parent=PARENT, queue={"name": queue_name})
        client.delete_queue(name=queue_name)

        assert refusal(client.create_queue, parent=PARENT, queue={"name": queue_name}) == (
            "FAILED_PRECONDITION",
            "The queue cannot be created because a queue with this name existed too recently.",
        )
        client.close()


def test_queues_are_listed_by_name_page_by_page(service: RunningService, client: Client) -> None:
    parent = f"projects/listing-{client.version}/locations/somewhere"
    names = [f"{parent}/queues/q{number}" for number in (3, 1, 2)]
    for name in names:
        if name not in [queue.name for queue in client.list_queues(parent=parent)]:
            client.create_queue(parent=parent, queue={"name": name})

    assert [queue.name for queue in client.list_queues(parent=parent, page_size=2)] == sorted(names)
    assert [queue.name for queue in client.list_queues(parent=parent, filter="name: q1")] == [min(names)]
    client.pause_queue(name=names[0])
    paused = client.list_queues(parent=parent, filter="state: PAUSED")
    assert [queue.name for queue in paused] == [names[0]]
    assert refusal(client.list_queues, parent=parent, filter="state =")[0] == "INVALID_ARGUMENT"
    assert refusal(client.list_queues, parent=parent, page_token="bad")[0] == "INVALID_ARGUMENT"


def test_statistics_come_when_they_are_asked_for(service: RunningService, transport: str, queue_name: str) -> None:
    client = service.client(transport, "v2beta3")
    client.create_queue(parent=PARENT, queue={"name": queue_name})
    client.pause_queue(name=queue_name)
    client.create_task(parent=queue_name, task={"http_request": {"url": "http://localhost"}})

    queue = client.get_queue(name=queue_name, read_mask=FieldMask(paths=["stats", "name"]))

    assert queue.stats.tasks_count == 1
    assert queue.stats.effective_execution_rate == 500.0
    assert queue.state.name == "STATE_UNSPECIFIED", "not asked for"
    assert client.get_queue(name=queue_name).stats.tasks_count == 0
    client.close()


def test_policies_are_kept_and_answered(client: Client, queue_name: str) -> None:
    client.create_queue(parent=PARENT, queue={"name": queue_name})
    bindings = [{"role": "roles/cloudtasks.enqueuer", "members": ["user:a@example.com"]}]

    assert not client.get_iam_policy(resource=queue_name).bindings
    client.set_iam_policy(resource=queue_name, policy={"bindings": bindings})

    (binding,) = client.get_iam_policy(resource=queue_name).bindings
    assert (binding.role, list(binding.members)) == ("roles/cloudtasks.enqueuer", ["user:a@example.com"])
    asked = ["cloudtasks.tasks.create"]
    assert list(client.test_iam_permissions(resource=queue_name, permissions=asked).permissions) == asked
    missing = client.test_iam_permissions(resource=f"{queue_name}x", permissions=asked)
    assert list(missing.permissions) == []


def test_a_policy_is_replaced_only_by_who_has_seen_the_one_before(client: Client, queue_name: str) -> None:
    client.create_queue(parent=PARENT, queue={"name": queue_name})
    seen = client.get_iam_policy(resource=queue_name)
    bindings = [{"role": "roles/viewer", "members": ["user:a@example.com"]}]
    client.set_iam_policy(resource=queue_name, policy={"bindings": bindings, "etag": seen.etag})

    late = refusal(client.set_iam_policy, resource=queue_name, policy={"etag": seen.etag})

    assert late[0] == "ABORTED"
    assert client.get_iam_policy(resource=queue_name).bindings[0].role == "roles/viewer"
    client.set_iam_policy(resource=queue_name, policy={})
    assert not client.get_iam_policy(resource=queue_name).bindings, "without an etag it is replaced whatever it was"


def test_a_route_of_app_engine_is_nested_as_each_version_nests_it(
    service: RunningService, transport: str, queue_name: str
) -> None:
    routing = {"service": "mail", "version": "one"}
    two = service.client(transport)
    two.create_queue(parent=PARENT, queue={"name": queue_name, "app_engine_routing_override": routing})
    three, pulling = service.client(transport, "v2beta3"), service.client(transport, "v2beta2")

    assert two.get_queue(name=queue_name).app_engine_routing_override.service == "mail"
    assert three.get_queue(name=queue_name).app_engine_http_queue.app_engine_routing_override.version == "one"
    beta = pulling.update_queue(
        queue={"name": queue_name, "rate_limits": {"max_tasks_dispatched_per_second": 4}},
        update_mask=FieldMask(paths=["rate_limits.max_tasks_dispatched_per_second"]),
    )
    assert beta.app_engine_http_target.app_engine_routing_override.service == "mail"
    assert two.get_queue(name=queue_name).rate_limits.max_dispatches_per_second == 4
    for client in (two, three, pulling):
        client.close()


def limits_of_workflows(service: RunningService, queue: str) -> dict[str, Any]:
    """Return the limits of a queue as those who write workflows see them; none if there is no such queue."""
    answer = httpx.get(f"{service.url}/api/v1/queues", trust_env=False, timeout=WITHIN).json()
    shown: dict[str, Any] = next((one for one in answer["queues"] if one["name"] == queue), {})
    return {name: shown.get(name) for name in ("max_dispatches_per_second", "max_concurrent_dispatches")}


def describe(service: RunningService, queue: str) -> None:
    """Register a workflow that describes a queue."""
    described = {
        "name": queue,
        "max_dispatches_per_second": 7.0,
        "max_burst_size": None,
        "max_concurrent_dispatches": 2,
    }
    step = http_step("call", "http://127.0.0.1:9/")
    step["policy"]["queue"] = queue
    given = {**definition(f"uses-{queue}", [step]), "queues": [described]}
    body = {"definitions": [given], "current": [given["name"]]}
    httpx.post(f"{service.url}/api/v1/definitions", json=body, trust_env=False, timeout=WITHIN).raise_for_status()


@pytest.mark.parametrize("is_described_first", [True, False])
def test_deleting_a_queue_that_workflows_use_leaves_the_limits_they_describe(
    service: RunningService, rest: Client, *, is_described_first: bool
) -> None:
    name = f"q-{clock.token(6)}"
    parent = "projects/local/locations/local"
    queue = {"name": f"{parent}/queues/{name}", "rate_limits": {"max_dispatches_per_second": 300}}
    if is_described_first:
        describe(service, name)
    rest.create_queue(parent=parent, queue=queue)
    if not is_described_first:
        describe(service, name)

    rest.delete_queue(name=queue["name"])

    assert limits_of_workflows(service, name) == {"max_dispatches_per_second": 7.0, "max_concurrent_dispatches": 2}
    assert refusal(rest.get_queue, name=queue["name"]) == ("NOT_FOUND", NO_QUEUE)
    assert rest.create_queue(parent=parent, queue=queue).rate_limits.max_dispatches_per_second == 300


def test_deleting_a_queue_that_no_workflow_describes_leaves_no_limits(service: RunningService, rest: Client) -> None:
    name = f"q-{clock.token(6)}"
    parent = "projects/local/locations/local"
    rest.create_queue(parent=parent, queue={"name": f"{parent}/queues/{name}"})

    rest.delete_queue(name=f"{parent}/queues/{name}")

    assert limits_of_workflows(service, name) == {"max_dispatches_per_second": None, "max_concurrent_dispatches": None}
