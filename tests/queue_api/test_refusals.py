"""What is refused before a method is called, in the words of Cloud Tasks: no token, a foreign page, a hostile path."""

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import grpc
import httpx
import pytest
from google.api_core.exceptions import Unauthenticated
from google.cloud import tasks_v2
from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport
from google.oauth2.credentials import Credentials

from tests.queue_api.conftest import PARENT, PushTarget
from tests.queue_api.test_wire import error_of
from tests.support.queue_service import RunningService, running_service
from tests.support.waiting import WITHIN

TOKEN = "s3cret"  # of this test


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """Return a service that asks for a token."""
    with running_service(tmp_path_factory.mktemp("closed"), api_token=TOKEN) as service:
        yield service


@pytest.fixture
def http(closed: RunningService) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=closed.url, trust_env=False, verify=False, timeout=WITHIN) as client:
        yield client


def test_a_client_without_the_token_is_told_so_as_by_google(closed: RunningService, http: httpx.Client) -> None:
    answer = http.get(f"/v2/{PARENT}/queues")

    assert error_of(answer) == (401, "UNAUTHENTICATED", "the request needs the API token: set HOPLINE_API_TOKEN")
    assert answer.headers["www-authenticate"] == "Bearer"
    with grpc.insecure_channel(closed.grpc_address) as channel:
        over_grpc = tasks_v2.CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))
        with pytest.raises(Unauthenticated):
            over_grpc.get_queue(name=f"{PARENT}/queues/q", retry=None)


def test_a_client_with_the_token_is_let_in(closed: RunningService) -> None:
    credentials = Credentials(token=TOKEN)  # type: ignore[no-untyped-call]
    options = {"api_endpoint": closed.url}
    client = tasks_v2.CloudTasksClient(credentials=credentials, transport="rest", client_options=options)
    with grpc.insecure_channel(closed.grpc_address) as channel:
        over_grpc = tasks_v2.CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))

        assert list(client.list_queues(parent=PARENT)) == []
        assert list(over_grpc.list_queues(parent=PARENT, metadata=[("authorization", f"Bearer {TOKEN}")])) == []


def test_the_keys_of_identity_tokens_are_for_everybody(http: httpx.Client) -> None:
    told = http.get("/.well-known/openid-configuration")

    assert told.is_success
    assert http.get(told.json()["jwks_uri"]).json()["keys"]


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Host": "evil.example"}])
def test_a_foreign_page_or_name_has_no_permission(http: httpx.Client, headers: dict[str, str]) -> None:
    for path in (f"/v2/{PARENT}/queues", f"/v2beta3/{PARENT}/queues", f"/v2beta2/{PARENT}/queues", f"/{PARENT}/queues"):
        answer = http.post(path, json={}, headers={**headers, "Authorization": f"Bearer {TOKEN}"})

        assert error_of(answer)[:2] == (403, "PERMISSION_DENIED")


def test_other_paths_are_refused_in_the_words_of_their_own_api(http: httpx.Client) -> None:
    assert http.get("/api/v1/runs").json()["error"]["code"] == "unauthorized"


@pytest.mark.parametrize("line", [b"GET /v2/", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_a_head_that_does_not_end_is_refused(closed: RunningService, line: bytes) -> None:
    port = int(closed.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=WITHIN) as connection:
        connection.sendall(line)
        with suppress(ConnectionError):  # it is closed while this is still being sent
            for _ in range(64):
                connection.sendall(b"a" * 65_536)
        with suppress(ConnectionError):
            assert connection.recv(16).startswith(b"HTTP/1.1 431")
    with httpx.Client(base_url=closed.url, trust_env=False, verify=False, timeout=WITHIN) as http:
        assert http.get("/healthz", headers={"X": "a" * 50_000}).is_success


URLS = [
    *("http://", "http:///x", "http://[::1", "http://?", "http://@", "http://.", "http://a..b/", "http://%00/"),
    *("http://127.0.0.1:99999/", "http://127.0.0.1:abc/", "http://me:pw@127.0.0.1:9/", "http://127.0.0.1:9/a b"),
    *("http://127.0.0.1:9/\r\nX: y", "http://127.0.0.1:9\r\nHost: evil/", "http://127.0.0.1:9/\u2028", "http://\t/"),
]


def test_a_hostile_url_fails_its_own_task_and_no_other(
    http: httpx.Client, queue_name: str, target: PushTarget, eventually: Callable[[Callable[[], Any], str], Any]
) -> None:
    http.headers["Authorization"] = f"Bearer {TOKEN}"
    assert http.post(f"/v2/{PARENT}/queues", json={"name": queue_name, "retryConfig": {"maxAttempts": 1}}).is_success

    for url in [*URLS, target.url]:
        made = http.post(f"/v2/{queue_name}/tasks", json={"task": {"httpRequest": {"url": url}}})
        assert made.is_success, url

    target.wait_for(1)

    def dead() -> list[str]:
        letters = http.get(f"/v2/{queue_name}/deadTasks", params={"responseView": "FULL"}).json()
        return sorted(letter["httpRequest"]["url"] for letter in letters.get("deadTasks", []))

    eventually(lambda: dead() == sorted(URLS), "each has failed")


@pytest.mark.parametrize(
    "path",
    [
        "/v2",
        "/v2//",
        "/v2/%0A",
        "/v2/projects/p%0A/locations/l/queues",
        "/v2/projects/%2e%2e/locations/l/queues/a%2Fb",
        "/projects",
        f"/v2/{PARENT}/queues/q%00",
        f"/v2/{PARENT}/queues/{'q' * 101}",
        f"/v2/{PARENT}/queues/q/tasks/{'t' * 501}",
        f"/v2/{PARENT}/queues/%F0%9F%90%88",
        f"/v2/{PARENT}/queues/%FF",
        f"/v2/{PARENT}/queues?filter=%FF",
        f"/v2/{PARENT}/queues?pageSize=many",
        f"/v2/{PARENT}/queues?pageToken=%00",
        f"/v2/{PARENT}/queues?filter={'(' * 500}",
    ],
)
@pytest.mark.parametrize("verb", ["GET", "POST", "TRACE", "OPTIONS"])
def test_a_hostile_path_is_an_error_that_clients_understand(http: httpx.Client, path: str, verb: str) -> None:
    answer = http.request(verb, path, headers={"Authorization": f"Bearer {TOKEN}"})

    code, status, message = error_of(answer)
    assert code in (400, 404, 501)
    assert status in ("INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED")
    assert message
