"""What each API version calls and nests differently: into the service's shape, which is v2's, and back."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from hopline_engine.core.cloud.errors import invalid
from hopline_engine.core.cloud.model import (
    UNLIMITED,
    Attempt,
    Queue,
    QueueStats,
    QueueType,
    RateLimits,
    RetryConfig,
    Task,
)
from hopline_engine.core.cloud.queues import fields_of_target
from hopline_engine.core.cloud.tasks import fields_of_payload
from hopline_engine.queue_api.shapes import Version
from hopline_engine.queue_api.wire import Fields

_RATE_NAMES: Final[Mapping[str, str]] = {
    "max_tasks_dispatched_per_second": "max_dispatches_per_second",
    "max_concurrent_tasks": "max_concurrent_dispatches",
}
"""What v2beta2 calls limits, and what all others do."""
_ROUTING: Final[Mapping[Version, str]] = {
    Version.V2BETA3: "app_engine_http_queue",
    Version.V2BETA2: "app_engine_http_target",
}
"""The message in which a version wraps a queue's App Engine routing."""
_TARGETS: Final = ("pull_target", "http_target", "app_engine_http_target")
"""The targets of a queue in v2beta2, the one that counts most first."""


# --- in -------------------------------------------------------------------------------------------------------------


def queue_in(version: Version, fields: Fields) -> dict[str, Any]:
    """Return the fields of a queue in the shape of v2."""
    queue: dict[str, Any] = dict(fields)
    if version is Version.V2BETA2 and sum(name in queue for name in _TARGETS) > 1:
        raise invalid("Queue can have only one of pullTarget, httpTarget and appEngineHttpTarget.")
    if version in _ROUTING:
        wrapped = queue.pop(_ROUTING[version], None)
        if wrapped is not None and "app_engine_routing_override" in wrapped:
            queue["app_engine_routing_override"] = wrapped["app_engine_routing_override"]
    limits: Fields | None = queue.get("rate_limits")
    if limits is not None:
        if version is Version.V2BETA2:
            limits = {_RATE_NAMES.get(name, name): value for name, value in limits.items()}
        queue["rate_limits"] = limits if version is not Version.V2 else _without(limits, "max_burst_size")
    if version is Version.V2BETA2 and "retry_config" in queue:
        queue["retry_config"] = retry_in(version, queue["retry_config"])
    return queue


def retry_in(version: Version, fields: Fields) -> dict[str, Any]:
    """Return the fields of a retry configuration in the shape of v2."""
    retry = dict(fields)
    is_unlimited = retry.pop("unlimited_attempts", False)
    if is_unlimited and "max_attempts" in retry:
        raise invalid("RetryConfig can have only one of maxAttempts and unlimitedAttempts.")
    if is_unlimited:
        retry["max_attempts"] = UNLIMITED
    elif version is Version.V2BETA2 and retry.get("max_attempts", 1) < 0:
        raise invalid("RetryConfig.maxAttempts must be greater than 0.")
    return retry


def task_in(version: Version, fields: Fields) -> dict[str, Any]:
    """Return the fields of a task in the shape of v2."""
    task = dict(fields)
    if version is Version.V2BETA3 and "pull_message" in task:
        raise invalid("Task.pullMessage cannot be set through this version of the API.")
    if version is Version.V2BETA2 and "app_engine_http_request" in task:
        request = dict(task["app_engine_http_request"])
        for theirs, ours in (("relative_url", "relative_uri"), ("payload", "body")):
            if theirs in request:
                request[ours] = request.pop(theirs)
        task["app_engine_http_request"] = request
    if "retry_config" in task:
        task["retry_config"] = retry_in(version, task["retry_config"])
    return task


def mask_in(version: Version, mask: list[str]) -> list[str]:
    """Return the paths of an update mask in the shape of v2."""
    return [path for given in mask for path in _path_in(version, given)]


def _path_in(version: Version, path: str) -> list[str]:
    wrapper = _ROUTING.get(version)
    if wrapper is not None and (path == wrapper or path.startswith(f"{wrapper}.")):
        return [path.removeprefix(wrapper).removeprefix(".") or "app_engine_routing_override"]
    root, _, leaf = path.partition(".")
    if version is Version.V2BETA2 and root == "rate_limits" and leaf in _RATE_NAMES:
        return [f"{root}.{_RATE_NAMES[leaf]}"]
    if version is Version.V2BETA2 and path == "retry_config.unlimited_attempts":
        return ["retry_config.max_attempts"]
    if version is Version.V2 and path == "rate_limits.max_burst_size":
        return []  # output only in this version
    return [path]


def _without(fields: Fields, name: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key != name}


# --- out ------------------------------------------------------------------------------------------------------------


def queue_out(version: Version, queue: Queue, stats: QueueStats | None = None) -> dict[str, Any]:
    """Return the fields of a queue as a version shows them."""
    config = queue.config
    fields: dict[str, Any] = {
        "name": queue.name,
        "rate_limits": _limits_out(version, queue.rate_limits),
        "retry_config": _retry_out(version, config.retry_config, is_pull=queue.is_pull),
        "state": queue.state.value,
        "purge_time": queue.purge_time,
        "stackdriver_logging_config": {"sampling_ratio": config.sampling_ratio} if config.sampling_ratio else None,
        "task_ttl": config.task_ttl,
        "tombstone_ttl": config.tombstone_ttl,
        "type": config.type.value,
        "stats": asdict(stats) if stats is not None else None,
        "http_target": fields_of_target(config.http_target) if config.http_target is not None else None,
    }
    if config.type is QueueType.PULL:
        fields["pull_target"] = {}
    routing = config.app_engine_routing_override
    if routing is not None:
        shown = asdict(routing)
        wrapper = _ROUTING.get(version)
        fields[wrapper or "app_engine_routing_override"] = (
            {"app_engine_routing_override": shown} if wrapper is not None else shown
        )
    return _only_one_target(fields) if version is Version.V2BETA2 else fields


def _only_one_target(fields: dict[str, Any]) -> dict[str, Any]:
    """Leave out targets beyond the first: in v2beta2 a queue can show one, though it may have several."""
    shown = next((name for name in _TARGETS if fields.get(name) is not None), None)
    return {name: value for name, value in fields.items() if name not in _TARGETS or name == shown}


def masked(fields: dict[str, Any], mask: list[str]) -> dict[str, Any]:
    """Return of a queue's fields those whose names, or parts of whose, are in a read mask."""
    roots = {path.partition(".")[0] for path in mask}
    return fields if not mask or "*" in roots else {name: value for name, value in fields.items() if name in roots}


def _limits_out(version: Version, limits: RateLimits) -> dict[str, Any]:
    if limits.max_concurrent_dispatches == UNLIMITED:  # of a pull queue there is nothing else to say
        name = "max_concurrent_tasks" if version is Version.V2BETA2 else "max_concurrent_dispatches"
        return {name: UNLIMITED}
    shown = asdict(limits)
    if version is not Version.V2BETA2:
        return shown
    theirs = {ours: their for their, ours in _RATE_NAMES.items()}
    return {theirs.get(name, name): value for name, value in shown.items()}


def _retry_out(version: Version, retry: RetryConfig, *, is_pull: bool = False) -> dict[str, Any]:
    shown = asdict(retry)
    if not shown["max_retry_duration"]:
        del shown["max_retry_duration"]
    if is_pull:
        shown = {name: shown[name] for name in ("max_attempts", "max_retry_duration") if name in shown}
    if version is Version.V2BETA2 and retry.max_attempts == UNLIMITED:
        del shown["max_attempts"]
        shown["unlimited_attempts"] = True
    return shown


def task_out(version: Version, task: Task, *, full: bool) -> dict[str, Any]:
    """Return the fields of a task as a version shows them; *task* has its body only if *full*."""
    payload, request = fields_of_payload(task.payload if full else task.without_body().payload)
    if version is Version.V2BETA2 and payload == "app_engine_http_request":
        request["relative_url"] = request.pop("relative_uri")
        request["payload"] = request.pop("body")
    fields: dict[str, Any] = {
        "name": task.name,
        payload: request,
        "schedule_time": task.schedule_time,
        "create_time": task.create_time,
        "dispatch_deadline": task.dispatch_deadline,
        "view": "FULL" if full else "BASIC",
        "retry_config": _retry_out(version, task.retry_config) if task.retry_config is not None else None,
    }
    first = {"dispatch_time": task.first_attempt.dispatch_time} if task.first_attempt is not None else None
    last = _attempt_out(task.last_attempt) if task.last_attempt is not None else None
    if version is not Version.V2BETA2:
        counts = {"dispatch_count": task.dispatch_count, "response_count": task.response_count}
        return {**fields, **counts, "first_attempt": first, "last_attempt": last}
    if task.dispatch_count:
        fields["status"] = {
            "attempt_dispatch_count": task.dispatch_count,
            "attempt_response_count": task.response_count,
            "first_attempt_status": first,
            "last_attempt_status": last,
        }
    return fields


def _attempt_out(attempt: Attempt) -> dict[str, Any]:
    return {
        "schedule_time": attempt.schedule_time,
        "dispatch_time": attempt.dispatch_time,
        "response_time": attempt.response_time,
        "response_status": asdict(attempt.response_status) if attempt.response_status is not None else None,
    }
