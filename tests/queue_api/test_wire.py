"""The REST front as other programs than Google's Python client speak to it; and what Hopline adds to it."""

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.queue_api.conftest import PARENT, PushTarget
from tests.support.queue_service import RunningService, running_service
from tests.support.waiting import WITHIN

Eventually = Callable[[Callable[[], Any], str], Any]
Queue = str


@pytest.fixture
def http(service: RunningService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, trust_env=False, verify=False, timeout=WITHIN) as client:
        yield client


@pytest.fixture
def queue(http: httpx.Client, queue_name: str) -> Queue:
    """Return a queue that sends nothing."""
    assert http.post(f"/v2/{PARENT}/queues", json={"name": queue_name}).is_success
    assert http.post(f"/v2/{queue_name}:pause").is_success
    return queue_name


def error_of(answer: httpx.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    assert answer.headers["content-type"] == "application/json; charset=UTF-8"
    assert error["code"] == answer.status_code
    return error["code"], error["status"], error["message"]


def test_names_of_fields_and_values_may_be_written_in_every_way_of_protobuf(http: httpx.Client, queue: Queue) -> None:
    for request in (
        {"httpMethod": "PUT", "url": "http://x", "oidcToken": {"serviceAccountEmail": "a@b"}},
        {"http_method": 4, "url": "http://x", "oidc_token": {"service_account_email": "a@b"}},
    ):
        made = http.post(f"/v2/{queue}/tasks", json={"task": {"http_request": request}}).json()

        assert made["httpRequest"]["httpMethod"] == "PUT"
        assert made["httpRequest"]["oidcToken"] == {"serviceAccountEmail": "a@b"}


def test_enums_are_answered_as_numbers_to_who_asks_for_them(http: httpx.Client, queue: Queue) -> None:
    assert http.get(f"/v2/{queue}").json()["state"] == "PAUSED"
    assert http.get(f"/v2/{queue}", params={"$alt": "json;enum-encoding=int"}).json()["state"] == 2


def test_standard_parameters_are_passed_over_and_unknown_ones_are_not(http: httpx.Client, queue: Queue) -> None:
    standard = {"alt": "json", "prettyPrint": "true", "key": "k", "quotaUser": "q", "$.xgafv": "1", "fields": "name"}

    assert http.get(f"/v2/{queue}", params=standard).is_success
    code, status, message = error_of(http.get(f"/v2/{queue}", params={"colour": "red"}))
    assert (code, status) == (400, "INVALID_ARGUMENT")
    assert 'Unknown name "colour"' in message


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"task": {"httpRequest": {"url": 5}}}', "Invalid value at 'task.http_request.url' (TYPE_STRING), 5"),
        (b'{"task": {"colour": 1}}', "Unknown name \"colour\" at 'task': Cannot find field."),
        (b'{"task": {"httpRequest": {"url": "http://x", "body": "?"}}}', "Base64 decoding failed."),
        (b'{"task": {"httpRequest": {"url": "http://x", "httpMethod": "BREW"}}}', "HttpMethod"),
        (b'{"task": {"httpRequest": {"url": "http://x", "httpMethod": 77}}}', "HttpMethod"),
        (b'{"task": {"scheduleTime": "tomorrow"}}', "Timestamp"),
        (b'{"task": {"scheduleTime": "2026-13-01T00:00:00Z"}}', "Timestamp"),
        (b'{"task": {"dispatchDeadline": "5"}}', "Duration"),
        (b'{"task": {"httpRequest": {"url": "http://x", "headers": {"a": 1}}}}', "TYPE_STRING"),
        (b'{"task": {"httpRequest": {"url": "http://x/\\u0000"}}}', "NUL"),
        (b'{"task": {"httpRequest": {"url": "http://x/\\ud800"}}}', "not Unicode"),
        (b'{"task": []}', "Invalid value at 'task'"),
        (b'{"task": NaN}', "not JSON"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_request_is_refused_and_nothing_is_stored(
    http: httpx.Client, queue: Queue, body: bytes, part: str
) -> None:
    code, status, message = error_of(http.post(f"/v2/{queue}/tasks", content=body))

    assert (code, status) == (400, "INVALID_ARGUMENT")
    assert part in message
    assert http.get(f"/v2/{queue}/tasks").json() == {}


def test_a_body_that_is_too_large_is_refused(http: httpx.Client, queue: Queue) -> None:
    code, status, _ = error_of(http.post(f"/v2/{queue}/tasks", content=b" " * (16 * 1024 * 1024 + 1)))

    assert (code, status) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize("path", ["/v2/x", "/v2/", f"/v2/{PARENT}/queues/a/b", "/v2/projects//locations/x/queues"])
def test_an_unknown_path_is_not_found(http: httpx.Client, path: str) -> None:
    assert error_of(http.get(path))[:2] == (404, "NOT_FOUND")


def test_a_wrong_verb_says_which_are_right(http: httpx.Client, queue: Queue) -> None:
    assert error_of(http.put(f"/v2/{queue}")) == (
        501,
        "UNIMPLEMENTED",
        "Method PUT is not allowed here; DELETE, GET, PATCH is.",
    )


def test_paths_without_a_version_are_those_of_version_two(http: httpx.Client, queue: Queue) -> None:
    made = http.post(f"/{queue}/tasks", json={"task": {"httpRequest": {"url": "http://x"}}}).json()

    assert http.get(f"/{made['name']}").json() == http.get(f"/v2/{made['name']}").json()
    assert http.delete(f"/{made['name']}").json() == {}


def test_malformed_names_link_to_the_reference(http: httpx.Client) -> None:
    error = http.post(f"/v2/{PARENT}/queues", json={"name": "q"}).json()["error"]

    assert error["details"][0]["@type"] == "type.googleapis.com/google.rpc.Help"


def test_leases_are_only_in_the_version_that_has_them(http: httpx.Client, queue: Queue) -> None:
    assert error_of(http.post(f"/v2/{queue}/tasks:lease", json={"leaseDuration": "5s"}))[0] == 404


def test_locations_are_those_in_use_and_local(http: httpx.Client, queue: Queue) -> None:
    listed = http.get("/v2/projects/p/locations").json()["locations"]

    assert {location["locationId"] for location in listed} >= {"local", "us-central1"}
    assert http.get(f"/v2/{PARENT}").json()["name"] == PARENT


def test_a_buffered_task_takes_everything_but_its_body_from_the_queue(
    http: httpx.Client, queue_name: str, target: PushTarget
) -> None:
    address = target.url.removeprefix("http://")
    host, _, port = address.partition(":")
    override = {"scheme": "HTTP", "host": host, "port": port, "pathOverride": {"path": "/in"}}
    body = {"name": queue_name, "httpTarget": {"uriOverride": override}}
    assert http.post(f"/v2/{PARENT}/queues", json=body).is_success

    plain = http.post(f"/v2/{queue_name}/tasks:buffer", content=b"plain", headers={"Content-Type": "text/plain"})
    encoded = {"body": {"contentType": "text/x", "data": base64.b64encode(b"encoded").decode()}}
    named = http.post(f"/v2/{queue_name}/tasks/mine:buffer", json=encoded)

    assert named.json()["task"]["name"] == f"{queue_name}/tasks/mine"
    assert plain.json()["task"]["name"].startswith(f"{queue_name}/tasks/")
    received = target.wait_for(2)
    assert {(one.path, one.body, one["Content-Type"]) for one in received} == {
        ("/in", b"plain", "text/plain"),
        ("/in", b"encoded", "text/x"),
    }


def test_a_queue_without_a_target_buffers_nothing(http: httpx.Client, queue: Queue) -> None:
    assert error_of(http.post(f"/v2/{queue}/tasks:buffer", content=b"x"))[1] == "FAILED_PRECONDITION"


def test_a_task_that_is_given_up_can_be_looked_at_run_again_and_deleted(
    http: httpx.Client, queue_name: str, target: PushTarget, eventually: Eventually
) -> None:
    http.post(f"/v2/{PARENT}/queues", json={"name": queue_name, "retryConfig": {"maxAttempts": 1}})
    target.statuses, target.answer_headers = [500, 502], {"X-Why": "because"}
    name = f"{queue_name}/tasks/doomed"
    http.post(f"/v2/{queue_name}/tasks", json={"task": {"name": name, "httpRequest": {"url": target.url}}})

    def dead() -> list[Any]:
        return list(http.get(f"/v2/{queue_name}/deadTasks").json().get("deadTasks", []))

    (letter,) = eventually(dead, "it is given up")
    assert letter["name"] == name
    assert letter["lastAttempt"]["responseStatus"]["message"] == "INTERNAL(13): HTTP status code 500"
    revived = http.post(f"/v2/{queue_name}/deadTasks/doomed:run")
    assert revived.json()["name"] == name
    target.wait_for(2)
    eventually(dead, "it is given up again, as its queue says")
    attempts = http.get(f"/v2/{name}/attempts").json()["attempts"]
    assert [(one["number"], one["httpStatus"]) for one in attempts] == [(1, 500), (2, 502)]
    assert "x-why: because" in attempts[0]["responseHead"]
    assert http.delete(f"/v2/{queue_name}/deadTasks/doomed").json() == {}
    assert dead() == []
    assert http.delete(f"/v2/{queue_name}/deadTasks/doomed").status_code == 404


def test_a_queue_may_be_made_by_its_first_task_if_a_setting_says_so(tmp_path: Path, target: PushTarget) -> None:
    with (
        running_service(tmp_path, create_queues=True) as service,
        httpx.Client(base_url=service.url, timeout=WITHIN) as http,
    ):
        path = f"/v2/{PARENT}/queues/new"

        assert http.post(f"{path}/tasks", json={"task": {"httpRequest": {"url": target.url}}}).is_success

        target.wait_for(1)
        assert http.get(path).json()["rateLimits"]["maxDispatchesPerSecond"] == 500


def test_identity_tokens_can_be_verified_with_the_published_key(
    http: httpx.Client, queue_name: str, target: PushTarget
) -> None:
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
    from cryptography.hazmat.primitives.hashes import SHA256

    http.post(f"/v2/{PARENT}/queues", json={"name": queue_name})
    token = {"serviceAccountEmail": "robot@example.com"}
    request = {"url": f"{target.url}/x", "oidcToken": token, "headers": {"authorization": "Basic x"}}
    http.post(f"/v2/{queue_name}/tasks", json={"task": {"httpRequest": request}})

    received = target.wait_for(1)[0]
    assert [name for name, _ in received.headers if name.lower() == "authorization"] == ["Authorization"]
    authorization = received["Authorization"]
    assert authorization is not None
    head, claims, signature = authorization.removeprefix("Bearer ").split(".")
    jwks = http.get(http.get("/.well-known/openid-configuration").json()["jwks_uri"]).json()
    (key,) = jwks["keys"]
    numbers = RSAPublicNumbers(_number(key["e"]), _number(key["n"]))
    numbers.public_key().verify(_decoded(signature), f"{head}.{claims}".encode(), PKCS1v15(), SHA256())
    said = json.loads(_decoded(claims))
    assert (said["aud"], said["email"]) == (f"{target.url}/x", "robot@example.com")
    assert said["exp"] - said["iat"] == 3600


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _number(text: str) -> int:
    return int.from_bytes(_decoded(text), "big")


@pytest.mark.parametrize(("version", "has_leases"), [("v2", False), ("v2beta3", False), ("v2beta2", True)])
def test_each_version_describes_itself(http: httpx.Client, version: str, has_leases: bool) -> None:
    document = http.get(f"/{version}/openapi.json").json()

    paths = document["paths"]
    queue = f"/{version}/projects/{{project}}/locations/{{location}}/queues/{{queue}}"
    assert set(paths[queue]) == {"get", "patch", "delete"}
    assert (f"{queue}/tasks:lease" in paths) == has_leases
    assert document["components"]["schemas"]["Task"]["additionalProperties"] is False
