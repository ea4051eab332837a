"""The translator: what a message says is what the service is asked, and what it answers."""

import importlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hopline_engine.core.cloud.errors import CloudTasksError
from hopline_engine.core.cloud.model import AppEngineHttpRequest, HttpRequest, Queue, Task
from hopline_engine.core.cloud.names import TaskName, parse_queue, parse_task
from hopline_engine.core.cloud.queues import fields_of, queue_from
from hopline_engine.core.cloud.tasks import task_from
from hopline_engine.queue_api.grpc_server import message, to_json, to_message
from hopline_engine.queue_api.shapes import SHAPES, Version
from hopline_engine.queue_api.versions import queue_in, queue_out, task_in, task_out
from hopline_engine.queue_api.wire import read_message, write_message

NAME = "projects/p/locations/l/queues/q"
NOW = 1_700_000_000.25
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
spans = st.integers(0, 10_000_000).map(lambda micros: micros / 1000)
versions = st.sampled_from(list(Version))

queues = st.fixed_dictionaries(
    {},
    optional={
        "rate_limits": st.fixed_dictionaries(
            {},
            optional={
                "max_dispatches_per_second": st.floats(0.01, 500),
                "max_concurrent_dispatches": st.integers(1, 5000),
            },
        ),
        "retry_config": st.fixed_dictionaries(
            {},
            optional={
                "max_attempts": st.integers(-1, 1000),
                "max_retry_duration": spans,
                "max_doublings": st.integers(1, 100),
                "min_backoff": st.just(0.0) | st.floats(0, 10).map(lambda seconds: round(seconds, 6)),
            },
        ),
        "app_engine_routing_override": st.fixed_dictionaries({"service": texts, "version": texts}),
        "http_target": st.fixed_dictionaries(
            {
                "uri_override": st.fixed_dictionaries(
                    {"host": st.from_regex(r"[a-z0-9.-]{1,20}", fullmatch=True)},
                    optional={
                        "port": st.integers(0, 65535),
                        "scheme": st.sampled_from(["HTTP", "HTTPS"]),
                        "path_override": st.fixed_dictionaries({"path": texts}),
                    },
                )
            },
            optional={"http_method": st.sampled_from(["GET", "PATCH"])},
        ),
    },
)

headers = st.dictionaries(st.from_regex(r"[A-Wa-w][A-Za-z-]{0,10}", fullmatch=True), texts.filter(str.isprintable))
tasks = st.fixed_dictionaries(
    {},
    optional={
        "schedule_time": st.integers(1, 2_000_000_000_000).map(lambda micros: NOW + micros / 1e6),
        "dispatch_deadline": st.integers(15_000, 1_800_000).map(lambda millis: millis / 1000),
        "retry_config": st.fixed_dictionaries({"max_attempts": st.integers(1, 9)}),
    },
).flatmap(
    lambda common: st.one_of(
        st.fixed_dictionaries(
            {
                "url": texts.map(lambda text: "http://h/" + text),
                "http_method": st.sampled_from(["POST", "PUT", "PATCH"]),
                "headers": headers,
                "body": st.binary(max_size=50),
            },
            optional={"oidc_token": st.fixed_dictionaries({"service_account_email": texts, "audience": texts})},
        ).map(lambda request: {**common, "http_request": request}),
        st.fixed_dictionaries({"relative_uri": st.just("/x"), "headers": headers, "body": st.binary(max_size=50)}).map(
            lambda request: {**common, "app_engine_http_request": request}
        ),
    )
)


def through_the_wire(version: Version, name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields after they were a message of Google's, serialized and read again."""
    kind = message(version, name)
    sent = to_message(write_message(SHAPES[version], name, fields), kind)
    arrived = kind.FromString(sent.SerializeToString())
    return read_message(SHAPES[version], name, to_json(arrived))


@settings(deadline=None)
@given(versions, queues)
def test_a_queue_survives_every_version(version: Version, asked: dict[str, Any]) -> None:
    if version is Version.V2BETA2 and "http_target" in asked:  # it shows one target only
        asked = {name: value for name, value in asked.items() if name != "app_engine_routing_override"}
    queue = queue_from(NAME, asked)

    arrived = queue_in(version, through_the_wire(version, "Queue", queue_out(version, queue)))

    again = queue_from(NAME, arrived)
    assert (again.config.retry_config, again.config.http_target) == (
        queue.config.retry_config,
        queue.config.http_target,
    )
    assert again.config.app_engine_routing_override == queue.config.app_engine_routing_override
    limits, expected = again.rate_limits, queue.rate_limits
    assert limits.max_dispatches_per_second == expected.max_dispatches_per_second
    assert limits.max_concurrent_dispatches == expected.max_concurrent_dispatches


@settings(deadline=None)
@given(queues)
def test_what_would_have_to_be_asked_for_a_queue_makes_the_same_queue(asked: dict[str, Any]) -> None:
    queue = queue_from(NAME, asked)

    assert queue_from(NAME, fields_of(queue)) == queue


@settings(deadline=None)
@given(versions, tasks)
def test_a_task_survives_every_version(version: Version, asked: dict[str, Any]) -> None:
    if version is Version.V2BETA2:
        asked = {name: value for name, value in asked.items() if name not in ("dispatch_deadline", "retry_config")}
    name = TaskName(parse_queue(NAME), "t")
    task = task_from(name, Queue(name=NAME), asked, NOW)

    arrived = task_in(version, through_the_wire(version, "Task", task_out(version, task, full=True)))

    again = task_from(parse_task(arrived["name"]), Queue(name=NAME), _as_asked(task, arrived), NOW)
    assert again == task


def _as_asked(task: Task, arrived: dict[str, Any]) -> dict[str, Any]:
    """Leave out what the service adds by itself to the headers of an App Engine task."""
    if isinstance(task.payload, AppEngineHttpRequest):
        request = dict(arrived["app_engine_http_request"])
        own = {key: value for key, value in request["headers"].items() if key != "User-Agent"}
        return {**arrived, "app_engine_http_request": {**request, "headers": own}}
    assert isinstance(task.payload, HttpRequest)
    return arrived


@pytest.mark.parametrize("version", list(Version))
def test_every_field_of_google_s_messages_is_known_and_no_other(version: Version) -> None:
    types = importlib.import_module(f"google.cloud.tasks_{version}.types")
    # Known from the REST reference, and not in the messages of the package.
    only_in_rest = {("v2beta2", "Task", "retry_config")}
    for name, shape in SHAPES[version].items():
        # Attempts and routing are called differently in v2beta2, and requests of one name are one shape here.
        kind = getattr(types, {"Attempt": "AttemptStatus"}.get(name, name) if version == "v2beta2" else name, None)
        if kind is None or name.endswith("Request"):
            continue
        fields = {field.name.rstrip("_") for field in kind.pb().DESCRIPTOR.fields}
        known = {field for field in shape if (version.value, name, field) not in only_in_rest}
        assert known == fields, name


def test_a_time_out_of_bounds_is_refused_and_not_a_fault() -> None:
    task = message(Version.V2, "Task")()
    task.schedule_time.seconds = 10**15  # type: ignore[attr-defined]

    with pytest.raises(CloudTasksError, match="not valid"):
        to_json(task)
