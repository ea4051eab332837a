"""Calls on many tasks at once. They are done when they are answered; the operation that says so can be asked for again.

The numbers of states differ between the two calls, as in the original; here they have names.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hopline_engine.clock import token
from hopline_engine.core.cloud.errors import CloudTasksError, Code, entity_missing, invalid
from hopline_engine.core.cloud.model import Task
from hopline_engine.core.cloud.names import QueueName, TaskName
from hopline_engine.core.cloud.queues import Fields
from hopline_engine.queue.service import QueueService
from hopline_engine.queue_api.shapes import SHAPES, Version
from hopline_engine.queue_api.versions import task_out
from hopline_engine.queue_api.wire import write_message, write_time

MOST_CREATED: Final = 100
MOST_DELETED: Final = 1000


class Batches:
    """Batch calls of one API version."""

    def __init__(self, service: QueueService, version: Version) -> None:
        self._service = service
        self._version = version

    async def create(
        self, queue: QueueName, all_fields: Sequence[Fields], full: Sequence[bool], request_id: str
    ) -> dict[str, Any]:
        """Create tasks; return the operation. Of calls with the same *request_id* one creates them.

        Raises:
            CloudTasksError: there are none, or too many.
        """
        if not 0 < len(all_fields) <= MOST_CREATED:
            raise invalid(f"BatchCreateTasksRequest.requests must have between 1 and {MOST_CREATED} elements.")
        name, began = _name("BatchCreateTasks", queue, request_id), self._service.clock.now()

        def tell(outcomes: Sequence[Task | CloudTasksError]) -> bytes:
            failed = {at: error for at, error in enumerate(outcomes) if isinstance(error, CloudTasksError)}
            tasks = [self._written(made, full[at]) for at, made in enumerate(outcomes) if isinstance(made, Task)]
            operation = self._ended("BatchCreateTasks", name, began, failed, len(outcomes))
            operation["response"] = {"@type": _type(self._version, "BatchCreateTasksResponse"), "tasks": tasks}
            return json.dumps(operation).encode()

        return _read(await self._service.create_tasks(queue, all_fields, name, tell))

    async def delete(self, queue: QueueName, names: Sequence[TaskName], request_id: str) -> dict[str, Any]:
        """Delete tasks; return the operation. Of calls with the same *request_id* one deletes them.

        Raises:
            CloudTasksError: there are none, or too many, or some of another queue.
        """
        if not 0 < len(names) <= MOST_DELETED:
            raise invalid(f"BatchDeleteTasksRequest.names must have between 1 and {MOST_DELETED} elements.")
        if any(name.queue != queue for name in names):
            raise invalid("All tasks must be of the parent queue.")
        name, began = _name("BatchDeleteTasks", queue, request_id), self._service.clock.now()

        def tell(errors: Sequence[CloudTasksError | None]) -> bytes:
            failed = {at: error for at, error in enumerate(errors) if error is not None}
            operation = self._ended("BatchDeleteTasks", name, began, failed, len(errors))
            if len(failed) == len(errors):
                operation["error"] = {"code": int(Code.ABORTED), "message": "None of the tasks could be deleted."}
            else:
                operation["response"] = {"@type": "type.googleapis.com/google.protobuf.Empty"}
            return json.dumps(operation).encode()

        return _read(await self._service.delete_tasks(names, name, tell))

    async def operation(self, name: str) -> dict[str, Any]:
        """Return an operation.

        Raises:
            CloudTasksError: it is not known, or not any more.
        """
        body = await self._service.operation(name)
        if body is None:
            raise entity_missing()
        return _read(body)

    def _written(self, task: Task, full: bool) -> dict[str, Any]:
        return write_message(SHAPES[self._version], "Task", task_out(self._version, task, full=full))

    def _ended(
        self, method: str, name: str, began: float, failed: Mapping[int, CloudTasksError], asked: int
    ) -> dict[str, Any]:
        state = "SUCCEEDED" if not failed else "FAILED" if len(failed) == asked else "PARTIALLY_SUCCEEDED"
        return {
            "name": name,
            "done": True,
            "metadata": {
                "@type": _type(self._version, f"{method}Metadata"),
                "startTime": write_time(began),
                "endTime": write_time(max(began, self._service.clock.now())),
                "state": state,
                "failedRequests": {
                    str(at): {"code": int(error.status), "message": error.message} for at, error in failed.items()
                },
            },
        }


def _name(method: str, queue: QueueName, request_id: str) -> str:
    """Return the name of an operation; the same for calls that are said to be the same."""
    said = f"{method}\n{queue}\n{request_id}".encode()
    return f"{queue.parent}/operations/{hashlib.sha256(said).hexdigest()[:32] if request_id else token(16)}"


def _read(body: bytes) -> dict[str, Any]:
    operation: dict[str, Any] = json.loads(body)
    return operation


def _type(version: Version, message: str) -> str:
    return f"type.googleapis.com/google.cloud.tasks.{version}.{message}"
