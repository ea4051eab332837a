"""Any message of Google's: read and written again it is the same; sent to the service it is answered or refused."""

from collections.abc import Iterator
from typing import Any, Final

import grpc
import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hopline_engine.core.cloud.errors import CloudTasksError
from hopline_engine.queue_api import grpc_server
from hopline_engine.queue_api.grpc_server import message, to_json, to_message
from hopline_engine.queue_api.methods import METHODS
from hopline_engine.queue_api.shapes import SHAPES, Of, Version
from hopline_engine.queue_api.wire import read_message, write_message
from tests.queue_api.conftest import PARENT
from tests.queue_api.messages import TEXTS, messages
from tests.support.queue_service import RunningService
from tests.support.waiting import WITHIN

CALLS: Final = [(version, name) for version, methods in grpc_server._SERVED.items() for name in methods]
FAULTS: Final = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS}
QUEUES: Final = [f"{PARENT}/queues/fuzzed", f"{PARENT}/queues/pulled"]
NAMES: Final = st.one_of(
    st.sampled_from([PARENT, *QUEUES, *(f"{queue}/tasks/t" for queue in QUEUES), f"{PARENT}/cmekConfig"]),
    st.from_regex(r"projects/\w*/locations/\w*/queues/\w*(/tasks/\w*)?", fullmatch=True).filter(
        lambda name: "\0" not in name
    ),
    TEXTS,
)
URLS: Final = TEXTS | TEXTS.map(lambda text: "http://127.0.0.1:9/" + text)

every_call = pytest.mark.parametrize(("version", "name"), CALLS, ids=lambda value: str(value))


def check_both_ways(version: Version, shape: str, kind: type[Message]) -> None:
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(messages(kind))
    def check(told: Message) -> None:
        fields = read_message(SHAPES[version], shape, to_json(told))
        assert to_message(write_message(SHAPES[version], shape, fields), kind) == told

    check()


@every_call
def test_a_message_that_is_read_and_written_again_is_the_same(version: Version, name: str) -> None:
    asked, answered = grpc_server._SERVED[version][name]
    check_both_ways(version, METHODS[name].request, message(version, asked))
    check_both_ways(version, METHODS[name].answer, message(version, answered))


JSON: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=10,
)


def like(version: Version, shape: str, depth: int = 4) -> st.SearchStrategy[Any]:
    """Return a strategy for JSON that has the names of a message's fields, and anything in them."""
    fields = {
        field: JSON | like(version, kind.message, depth - 1) if isinstance(kind, Of) and depth else JSON
        for field, kind in SHAPES[version][shape].items()
    }
    return st.fixed_dictionaries({}, optional=fields)


@every_call
def test_json_is_read_or_refused(version: Version, name: str) -> None:
    shape = METHODS[name].request

    @settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(like(version, shape) | JSON)
    def check(value: Any) -> None:
        try:
            read_message(SHAPES[version], shape, value)
        except CloudTasksError as error:
            assert error.message

    check()


@pytest.fixture(scope="module")
def channel(service: RunningService) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(service.grpc_address) as opened:
        rest, pulling = service.client("rest"), service.client("rest", "v2beta2")
        rest.create_queue(parent=PARENT, queue={"name": QUEUES[0]})
        pulling.create_queue(parent=PARENT, queue={"name": QUEUES[1], "pull_target": {}})
        rest.close()
        pulling.close()
        yield opened


@every_call
def test_any_request_over_grpc_is_answered_or_refused_and_never_a_fault(
    channel: grpc.Channel, version: Version, name: str
) -> None:
    asked, answered = (message(version, each) for each in grpc_server._SERVED[version][name])
    call = channel.unary_unary(
        f"/google.cloud.tasks.{version}.CloudTasks/{name}",
        request_serializer=asked.SerializeToString,
        response_deserializer=answered.FromString,
    )
    texts = {**dict.fromkeys(("name", "parent", "resource"), NAMES), "url": URLS}

    @settings(max_examples=15, deadline=None)
    @given(messages(asked, texts))
    def check(request: Message) -> None:
        try:
            call(request, timeout=WITHIN)
        except grpc.RpcError as error:
            assert error.code() not in FAULTS, error.details()

    check()
