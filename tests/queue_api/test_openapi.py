"""The REST front against its own description: any request is answered as that says, and never with a fault."""

from collections.abc import Iterator
from typing import Any, Final

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, CheckContext, GenerationMode, Response
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from hopline_engine import clock
from hopline_engine.queue_api.openapi import document
from hopline_engine.queue_api.shapes import Version
from tests.queue_api.conftest import PARENT
from tests.support.queue_service import RunningService

OPERATIONS: Final = [
    (version, operation.ok())
    for version in Version
    for operation in schemathesis.openapi.from_dict(document(version)).get_all_operations()
    if isinstance(operation, Ok)
]
UNHURRIED: Final = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
URL: Final = "http://127.0.0.1:9/"
PULLING: Final = frozenset({"LeaseTasks", "AcknowledgeTask", "RenewLease", "CancelLease"})
NOTHING_DEAD: Final = frozenset({"RunDeadTask", "DeleteDeadTask"})


def no_fault(context: CheckContext, response: Response, case: Case[Any]) -> None:
    """Fail unless whatever went wrong was the caller's doing, or is said not to be served."""
    assert response.status_code < 500 or response.status_code == 501, response.text


CHECKS: Final = [no_fault, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as opened:
        opened.trust_env = False
        yield opened


class Place:
    """A queue with a task, and what a right request about them says."""

    def __init__(self, service: RunningService, session: requests.Session, method: str) -> None:
        self._url, self._session = service.url, session
        is_pulled = method in PULLING
        self.queue = f"{PARENT}/queues/q-{clock.token(6)}"
        kind: dict[str, Any] = {"pullTarget": {}} if is_pulled else {}
        self._post(f"{PARENT}/queues", {"name": self.queue, **kind})
        if not is_pulled:
            self._patch_target()
            self._post(f"{self.queue}:pause", {})
        self.task = self._post(f"{self.queue}/tasks", {"task": self._payload(is_pulled)})["name"]
        self.leased = ""
        if is_pulled and method != "LeaseTasks":
            (leased,) = self._post(f"{self.queue}/tasks:lease", {"leaseDuration": "600s"})["tasks"]
            self.leased = leased["scheduleTime"]
        self.operation = "" if is_pulled else self._post(f"{self.queue}/tasks:batchCreate", self._batch())["name"]

    def _payload(self, is_pulled: bool) -> dict[str, Any]:
        return {"pullMessage": {"payload": "eA==", "tag": "a"}} if is_pulled else {"httpRequest": {"url": URL}}

    def _batch(self) -> dict[str, Any]:
        return {"requests": [{"parent": self.queue, "task": {"httpRequest": {"url": URL}}, "responseView": "FULL"}]}

    def _patch_target(self) -> None:
        target = {"uriOverride": {"host": "localhost", "port": "9", "queryOverride": {"queryParams": "a=b"}}}
        body: dict[str, Any] = {"httpTarget": target}
        answer = self._session.patch(f"{self._url}/v2/{self.queue}", json=body)
        assert answer.ok, answer.text

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self._session.post(f"{self._url}/v2beta2/{path}", json=body)
        assert answer.ok, answer.text
        return answer.json()

    @property
    def parts(self) -> dict[str, str]:
        """The parts of paths that lead here."""
        _, project, _, location, _, queue, _, task = self.task.split("/")
        operation = self.operation.rpartition("/")[2] or "0" * 32
        return {"project": project, "location": location, "queue": queue, "task": task, "operation": operation}

    def body(self, method: str) -> dict[str, Any]:
        """The body of a right request."""
        bodies: dict[str, dict[str, Any]] = {
            "CreateQueue": {"name": f"{PARENT}/queues/q-{clock.token(6)}"},
            "UpdateQueue": {"retryConfig": {"maxAttempts": 3}},
            "CreateTask": {"task": self._payload(False), "responseView": "FULL"},
            "BatchCreateTasks": self._batch(),
            "BatchDeleteTasks": {"names": [self.task]},
            "BufferTask": {"body": {"data": "eA==", "contentType": "text/plain"}},
            "BufferTaskWithId": {"body": {"data": "eA=="}},
            "SetIamPolicy": {"policy": {"bindings": [{"role": "r", "members": ["user:a"]}]}},
            "TestIamPermissions": {"permissions": ["cloudtasks.tasks.create"]},
            "LeaseTasks": {"leaseDuration": "5s", "responseView": "FULL"},
            "AcknowledgeTask": {"scheduleTime": self.leased},
            "RenewLease": {"scheduleTime": self.leased, "leaseDuration": "9s"},
            "CancelLease": {"scheduleTime": self.leased},
        }
        return bodies.get(method, {})


def test_every_operation_that_is_described_is_tried() -> None:
    described = [path for version in Version for path in document(version)["paths"].values()]

    assert len(OPERATIONS) == sum(map(len, described))


every_operation = pytest.mark.parametrize(
    ("version", "operation"), OPERATIONS, ids=lambda value: str(getattr(value, "label", value))
)


def method_of(operation: Any) -> str:
    return str(operation.definition.raw["operationId"])


@every_operation
def test_a_right_request_is_answered_as_described(
    service: RunningService, session: requests.Session, version: Version, operation: Any
) -> None:
    method = method_of(operation)
    place = Place(service, session, method)
    said = {"body": place.body(method)} if "requestBody" in operation.definition.raw else {}
    names = {**place.parts, "task": "new"} if method == "BufferTaskWithId" else place.parts

    case = operation.Case(path_parameters=names, **said)
    answer = case.call_and_validate(base_url=service.url, session=session, checks=CHECKS)

    assert answer.status_code == (404 if method in NOTHING_DEAD else 200), answer.text


@every_operation
def test_any_request_is_answered_as_described(
    service: RunningService, session: requests.Session, version: Version, operation: Any
) -> None:
    place = Place(service, session, method_of(operation))
    strategies = (
        operation.as_strategy(path_parameters=place.parts),
        operation.as_strategy(GenerationMode.NEGATIVE, path_parameters=place.parts),
        operation.as_strategy(),
        operation.as_strategy(GenerationMode.NEGATIVE),
    )

    @settings(
        max_examples=20,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        phases=[Phase.generate],
    )
    @given(st.one_of(*strategies))
    def check(case: Case[Any]) -> None:
        case.call_and_validate(base_url=service.url, session=session, checks=CHECKS)

    check()
