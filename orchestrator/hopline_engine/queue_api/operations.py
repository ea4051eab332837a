"""Calls on many tasks at once. They are done when they are answered; the operation that says so can be asked for again.

The numbers of states differ between the two calls, as in the original; here they have names.
"""

import hashlib
import json
from collections.abc import Sequence
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
        """Create tasks; return the operation.

        Raises:
            CloudTasksError: there are none, or too many.
        """
        if not 0 < len(all_fields) <= MOST_CREATED:
            raise invalid(f"BatchCreateTasksRequest.requests must have between 1 and {MOST_CREATED} elements.")
        name = _name(queue, request_id)
        done = await self._known(name)
        if done is not None:
            return done
        began = self._service.clock.now()
        outcomes = await self._service.create_tasks(queue, all_fields)
        failed = {at: error for at, error in enumerate(outcomes) if isinstance(error, CloudTasksError)}
        tasks = [self._written(made, full[at]) for at, made in enumerate(outcomes) if isinstance(made, Task)]
        return await self._finish("BatchCreateTasks", name, began, failed, len(outcomes), {"tasks": tasks})

    async def delete(self, queue: QueueName, names: Sequence[TaskName], request_id: str) -> dict[str, Any]:
        """Delete tasks; return the operation.

        Raises:
            CloudTasksError: there are none, or too many, or some of another queue.
        """
        if not 0 < len(names) <= MOST_DELETED:
            raise invalid(f"BatchDeleteTasksRequest.names must have between 1 and {MOST_DELETED} elements.")
        if any(name.queue != queue for name in names):
            raise invalid("All tasks must be of the parent queue.")
        name = _name(queue, request_id)
        done = await self._known(name)
        if done is not None:
            return done
        began = self._service.clock.now()
        errors = await self._service.delete_tasks(names)
        failed = {at: error for at, error in enumerate(errors) if error is not None}
        return await self._finish("BatchDeleteTasks", name, began, failed, len(names), {})

    async def operation(self, name: str) -> dict[str, Any]:
        """Return an operation.

        Raises:
            CloudTasksError: it is not known, or not any more.
        """
        found = await self._known(name)
        if found is None:
            raise entity_missing()
        return found

    def _written(self, task: Task, full: bool) -> dict[str, Any]:
        return write_message(SHAPES[self._version], "Task", task_out(self._version, task, full=full))

    async def _known(self, name: str) -> dict[str, Any] | None:
        body = await self._service.operation(name)
        if body is None:
            return None
        known: dict[str, Any] = json.loads(body)
        return known

    async def _finish(
        self,
        method: str,
        name: str,
        began: float,
        failed: dict[int, CloudTasksError],
        asked: int,
        answer: dict[str, Any],
    ) -> dict[str, Any]:
        state = "SUCCEEDED" if not failed else "FAILED" if len(failed) == asked else "PARTIALLY_SUCCEEDED"
        operation: dict[str, Any] = {
            "name": name,
            "done": True,
            "metadata": {
                "@type": _type(self._version, f"{method}Metadata"),
                "startTime": write_time(began),
                "endTime": write_time(self._service.clock.now()),
                "state": state,
                "failedRequests": {
                    str(at): {"code": int(error.status), "message": error.message} for at, error in failed.items()
                },
            },
        }
        if method == "BatchDeleteTasks" and state == "FAILED":
            operation["error"] = {"code": int(Code.ABORTED), "message": "None of the tasks could be deleted."}
        else:
            operation["response"] = {"@type": _response_type(self._version, method), **answer}
        await self._service.save_operation(name, json.dumps(operation).encode())
        return operation


def _name(queue: QueueName, request_id: str) -> str:
    """Return the name of an operation; the same for calls that are said to be the same."""
    known = hashlib.sha256(f"{queue}\n{request_id}".encode()).hexdigest()[:32] if request_id else token(16)
    return f"{queue.parent}/operations/{known}"


def _type(version: Version, message: str) -> str:
    return f"type.googleapis.com/google.cloud.tasks.{version}.{message}"


def _response_type(version: Version, method: str) -> str:
    if method == "BatchDeleteTasks":
        return "type.googleapis.com/google.protobuf.Empty"
    return _type(version, f"{method}Response")
