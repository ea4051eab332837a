"""The methods of the API, one function each: fields of a request in, fields of the answer out.

They know nothing of HTTP or gRPC; both bring their requests into the same fields first.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any, Final, NamedTuple

from hopline_engine.core.cloud.errors import CloudTasksError, Code, entity_missing, invalid
from hopline_engine.core.cloud.model import Queue, QueueState
from hopline_engine.core.cloud.names import QueueName, TaskName, parse_location, parse_queue, parse_task
from hopline_engine.core.cloud.policies import etag_of
from hopline_engine.queue import listing
from hopline_engine.queue.listing import Page
from hopline_engine.queue.service import QueueService
from hopline_engine.queue_api.operations import Batches
from hopline_engine.queue_api.shapes import SHAPES, Version
from hopline_engine.queue_api.versions import mask_in, masked, queue_in, queue_out, task_in, task_out
from hopline_engine.queue_api.wire import Fields, read_message, write_message


class Call(NamedTuple):
    """A call of a method."""

    service: QueueService
    version: Version
    request: Fields

    @property
    def name(self) -> str:
        """The resource that it is about."""
        return str(self.request.get("name", ""))

    @property
    def parent(self) -> str:
        """The resource in which something is listed or made."""
        return str(self.request.get("parent", ""))

    @property
    def queue(self) -> QueueName:
        """The queue that it is about."""
        return parse_queue(self.name)

    @property
    def task(self) -> TaskName:
        """The task that it is about."""
        return parse_task(self.name)

    @property
    def is_full(self) -> bool:
        """Whether tasks are wanted with their bodies."""
        return self.request.get("response_view") == "FULL"

    @property
    def page(self) -> Page:
        """Which part of a listing is wanted."""
        return Page(self.request.get("page_size", 0), self.request.get("page_token", ""))


Handler = Callable[[Call], Awaitable[Mapping[str, Any]]]


class Method(NamedTuple):
    """A method and its messages."""

    request: str
    answer: str
    handle: Handler


# --- queues ---------------------------------------------------------------------------------------------------------


async def _list_queues(call: Call) -> Fields:
    mask: list[str] = call.request.get("read_mask", [])
    page = await listing.list_queues(
        call.service.store,
        parse_location(call.parent),
        call.request.get("filter", ""),
        lambda queue: queue_out(call.version, queue),
        call.page,
        call.service.clock.now(),
    )
    return {
        "queues": [await _shown(call, queue, mask) for queue in page.queues],
        "next_page_token": page.next_page_token,
    }


async def _get_queue(call: Call) -> Fields:
    return await _shown(call, await call.service.get_queue(call.queue), call.request.get("read_mask", []))


async def _shown(call: Call, queue: Queue, mask: list[str]) -> dict[str, Any]:
    wants_stats = any(path.partition(".")[0] == "stats" for path in mask)
    stats = await call.service.stats(parse_queue(queue.name)) if wants_stats else None
    return masked(queue_out(call.version, queue, stats), mask)


async def _create_queue(call: Call) -> Fields:
    parent = parse_location(call.parent)
    given = call.request.get("queue", {})
    name = parse_queue(given.get("name", ""))
    if name.parent != parent:
        raise invalid(f"The location from request ('{parent}') must be that of the queue ('{name.parent}').")
    return queue_out(call.version, await call.service.create_queue(name, queue_in(call.version, given)))


async def _update_queue(call: Call) -> Fields:
    given = call.request.get("queue", {})
    mask = call.request.get("update_mask", [])
    paths = mask_in(call.version, mask)
    if mask and not paths:
        paths = ["name"]  # only what cannot be changed was named; an empty mask would name everything
    changed = await call.service.update_queue(parse_queue(given.get("name", "")), queue_in(call.version, given), paths)
    return queue_out(call.version, changed)


async def _delete_queue(call: Call) -> Fields:
    await call.service.delete_queue(call.queue)
    return {}


async def _purge_queue(call: Call) -> Fields:
    return queue_out(call.version, await call.service.purge_queue(call.queue))


async def _pause_queue(call: Call) -> Fields:
    return queue_out(call.version, await call.service.set_state(call.queue, QueueState.PAUSED))


async def _resume_queue(call: Call) -> Fields:
    return queue_out(call.version, await call.service.set_state(call.queue, QueueState.RUNNING))


# --- tasks ----------------------------------------------------------------------------------------------------------


async def _list_tasks(call: Call) -> Fields:
    page = await listing.list_tasks(
        call.service.store, parse_queue(call.parent), call.page, call.service.clock.now(), full=call.is_full
    )
    tasks = [task_out(call.version, task, full=call.is_full) for task in page.tasks]
    return {"tasks": tasks, "next_page_token": page.next_page_token}


async def _get_task(call: Call) -> Fields:
    task = await call.service.get_task(call.task, full=call.is_full)
    return task_out(call.version, task, full=call.is_full)


async def _create_task(call: Call) -> Fields:
    queue = parse_queue(call.parent)
    fields = task_in(call.version, call.request.get("task", {}))
    return task_out(call.version, await call.service.create_task(queue, fields), full=call.is_full)


async def _delete_task(call: Call) -> Fields:
    await call.service.delete_task(call.task)
    return {}


async def _run_task(call: Call) -> Fields:
    return task_out(call.version, await call.service.run_task(call.task, full=call.is_full), full=call.is_full)


async def _buffer_task(call: Call) -> Fields:
    body = call.request.get("body", {})
    headers = {"Content-Type": body["content_type"]} if body.get("content_type") else {}
    queue, task = parse_queue(call.request["queue"]), call.request.get("task_id") or None
    made = await call.service.buffer_task(queue, task, body.get("data", b""), headers)
    return {"task": task_out(call.version, made, full=False)}


async def _batch_create_tasks(call: Call) -> Fields:
    queue = parse_queue(call.parent)
    requests = call.request.get("requests", [])
    if any(request.get("parent", call.parent) != call.parent for request in requests):
        raise invalid("The parent of each request must be the parent of the batch.")
    return await Batches(call.service, call.version).create(
        queue,
        [task_in(call.version, request.get("task", {})) for request in requests],
        [request.get("response_view") == "FULL" for request in requests],
        call.request.get("request_id", ""),
    )


async def _batch_delete_tasks(call: Call) -> Fields:
    names = [parse_task(name) for name in call.request.get("names", [])]
    batches = Batches(call.service, call.version)
    return await batches.delete(parse_queue(call.parent), names, call.request.get("request_id", ""))


async def _get_operation(call: Call) -> Fields:
    return await Batches(call.service, call.version).operation(call.name)


# --- leases ---------------------------------------------------------------------------------------------------------


async def _lease_tasks(call: Call) -> Fields:
    if "lease_duration" not in call.request:
        raise invalid("LeaseTasksRequest.leaseDuration is required.")
    tasks = await call.service.lease_tasks(
        parse_queue(call.parent),
        most=call.request.get("max_tasks", 0) or 1000,
        seconds=call.request["lease_duration"],
        filter_text=call.request.get("filter", ""),
        full=call.is_full,
    )
    return {"tasks": [task_out(call.version, task, full=call.is_full) for task in tasks]}


async def _acknowledge_task(call: Call) -> Fields:
    await call.service.acknowledge_task(call.task, _lease_end(call))
    return {}


async def _renew_lease(call: Call) -> Fields:
    if "lease_duration" not in call.request:
        raise invalid("RenewLeaseRequest.leaseDuration is required.")
    seconds = call.request["lease_duration"]
    task = await call.service.renew_lease(call.task, _lease_end(call), seconds, full=call.is_full)
    return task_out(call.version, task, full=call.is_full)


async def _cancel_lease(call: Call) -> Fields:
    task = await call.service.cancel_lease(call.task, _lease_end(call), full=call.is_full)
    return task_out(call.version, task, full=call.is_full)


def _lease_end(call: Call) -> float:
    end = call.request.get("schedule_time")
    if end is None:
        raise invalid("The scheduleTime of the lease is required.")
    return float(end)


# --- dead letters and attempts, beyond the original -----------------------------------------------------------------


async def _list_dead_tasks(call: Call) -> Fields:
    page = await listing.list_dead(
        call.service.store, parse_queue(call.parent), call.page, call.service.clock.now(), full=call.is_full
    )
    tasks = [task_out(call.version, task, full=call.is_full) for task in page.tasks]
    return {"dead_tasks": tasks, "next_page_token": page.next_page_token}


async def _run_dead_task(call: Call) -> Fields:
    return task_out(call.version, await call.service.revive(call.task), full=False)


async def _delete_dead_task(call: Call) -> Fields:
    await call.service.delete_dead(call.task)
    return {}


async def _list_attempts(call: Call) -> Fields:
    kept = await call.service.attempts(parse_task(call.parent))
    return {
        "attempts": [
            {
                **asdict(attempt),
                "http_status": attempt.status,
                "status": {"code": attempt.code, "message": attempt.message},
            }
            for attempt in kept
        ]
    }


# --- IAM, locations and keys ----------------------------------------------------------------------------------------


async def _get_iam_policy(call: Call) -> Fields:
    kept = await call.service.policy(parse_queue(call.request.get("resource", "")))
    policy = read_message(SHAPES[call.version], "Policy", json.loads(kept)) if kept is not None else {}
    return {**policy, "etag": etag_of(kept)}


async def _set_iam_policy(call: Call) -> Fields:
    given = dict(call.request.get("policy", {}))
    etag = given.pop("etag", None) or None
    policy = json.dumps(write_message(SHAPES[call.version], "Policy", given)).encode()
    await call.service.set_policy(parse_queue(call.request.get("resource", "")), policy, etag)
    return {**given, "etag": etag_of(policy)}


async def _test_iam_permissions(call: Call) -> Fields:
    is_there = await call.service.exists(parse_queue(call.request.get("resource", "")))
    asked = call.request.get("permissions", [])
    return {"permissions": [one for one in asked if one.startswith("cloudtasks.")] if is_there else []}


async def _list_locations(call: Call) -> Fields:
    project = call.name.removeprefix("projects/")
    found = await call.service.locations(project)
    return {"locations": [_location(f"projects/{project}/locations/{location}") for location in found]}


async def _get_location(call: Call) -> Fields:
    return _location(str(parse_location(call.name)))


def _location(name: str) -> dict[str, Any]:
    location = name.rpartition("/")[2]
    return {"name": name, "location_id": location, "labels": {"cloud.googleapis.com/region": location}}


async def _get_cmek_config(call: Call) -> Fields:
    return {"name": f"{_of_cmek(call.name)}/cmekConfig"}


async def _update_cmek_config(call: Call) -> Fields:
    config = call.request.get("cmek_config", {})
    name = f"{_of_cmek(config.get('name', ''))}/cmekConfig"
    if config.get("kms_key"):
        raise CloudTasksError(Code.UNIMPLEMENTED, "Tasks are not encrypted with keys of a key management service here.")
    return {"name": name}


def _of_cmek(name: str) -> str:
    location, _, last = name.rpartition("/")
    if last != "cmekConfig":
        raise entity_missing()
    return str(parse_location(location))


METHODS: Final[Mapping[str, Method]] = {
    "ListQueues": Method("ListQueuesRequest", "ListQueuesResponse", _list_queues),
    "GetQueue": Method("GetQueueRequest", "Queue", _get_queue),
    "CreateQueue": Method("CreateQueueRequest", "Queue", _create_queue),
    "UpdateQueue": Method("UpdateQueueRequest", "Queue", _update_queue),
    "DeleteQueue": Method("NameRequest", "Empty", _delete_queue),
    "PurgeQueue": Method("NameRequest", "Queue", _purge_queue),
    "PauseQueue": Method("NameRequest", "Queue", _pause_queue),
    "ResumeQueue": Method("NameRequest", "Queue", _resume_queue),
    "GetIamPolicy": Method("GetIamPolicyRequest", "Policy", _get_iam_policy),
    "SetIamPolicy": Method("SetIamPolicyRequest", "Policy", _set_iam_policy),
    "TestIamPermissions": Method("TestIamPermissionsRequest", "TestIamPermissionsResponse", _test_iam_permissions),
    "ListTasks": Method("ListTasksRequest", "ListTasksResponse", _list_tasks),
    "GetTask": Method("TaskRequest", "Task", _get_task),
    "CreateTask": Method("CreateTaskRequest", "Task", _create_task),
    "DeleteTask": Method("NameRequest", "Empty", _delete_task),
    "RunTask": Method("TaskRequest", "Task", _run_task),
    "BatchCreateTasks": Method("BatchCreateTasksRequest", "Operation", _batch_create_tasks),
    "BatchDeleteTasks": Method("BatchDeleteTasksRequest", "Operation", _batch_delete_tasks),
    "BufferTask": Method("BufferTaskRequest", "BufferTaskResponse", _buffer_task),
    "LeaseTasks": Method("LeaseTasksRequest", "LeaseTasksResponse", _lease_tasks),
    "AcknowledgeTask": Method("AcknowledgeTaskRequest", "Empty", _acknowledge_task),
    "RenewLease": Method("RenewLeaseRequest", "Task", _renew_lease),
    "CancelLease": Method("CancelLeaseRequest", "Task", _cancel_lease),
    "GetCmekConfig": Method("NameRequest", "CmekConfig", _get_cmek_config),
    "UpdateCmekConfig": Method("UpdateCmekConfigRequest", "CmekConfig", _update_cmek_config),
    "ListLocations": Method("ListLocationsRequest", "ListLocationsResponse", _list_locations),
    "GetLocation": Method("NameRequest", "Location", _get_location),
    "GetOperation": Method("NameRequest", "Operation", _get_operation),
    "ListDeadTasks": Method("ListTasksRequest", "ListDeadTasksResponse", _list_dead_tasks),
    "RunDeadTask": Method("TaskRequest", "Task", _run_dead_task),
    "DeleteDeadTask": Method("NameRequest", "Empty", _delete_dead_task),
    "ListAttempts": Method("ListTasksRequest", "ListAttemptsResponse", _list_attempts),
}
