"""Google's npm client as tests call the Python one: one process for all tests, and messages to and fro."""

import atexit
import base64
import functools
import importlib
import itertools
import json
import subprocess
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final

from google.iam.v1 import iam_policy_pb2, policy_pb2
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2
from google.protobuf.message import Message

from tests.support import node

_MESSAGES: Final[Mapping[str, type[Message]]] = {
    "google.iam.v1.Policy": policy_pb2.Policy,
    "google.iam.v1.GetIamPolicyRequest": iam_policy_pb2.GetIamPolicyRequest,
    "google.iam.v1.SetIamPolicyRequest": iam_policy_pb2.SetIamPolicyRequest,
    "google.iam.v1.TestIamPermissionsRequest": iam_policy_pb2.TestIamPermissionsRequest,
    "google.iam.v1.TestIamPermissionsResponse": iam_policy_pb2.TestIamPermissionsResponse,
    "google.longrunning.Operation": operations_pb2.Operation,
    "google.protobuf.Empty": empty_pb2.Empty,
}
_ANSWERS: Final[Mapping[str, str]] = {
    "delete_queue": "google.protobuf.Empty",
    "delete_task": "google.protobuf.Empty",
    "acknowledge_task": "google.protobuf.Empty",
    "get_iam_policy": "google.iam.v1.Policy",
    "set_iam_policy": "google.iam.v1.Policy",
    "test_iam_permissions": "google.iam.v1.TestIamPermissionsResponse",
    "batch_create_tasks": "google.longrunning.Operation",
    "batch_delete_tasks": "google.longrunning.Operation",
    "lease_tasks": "LeaseTasksResponse",
}
"""What calls answer that answer neither queues nor tasks."""


class NodeRefusalError(Exception):
    """What the npm client raised."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        super().__init__(told["trace"])
        self.code: int | None = told["code"]
        """The canonical code, if the service refused."""
        self.message: str = told["message"]


class _Process:
    """Node with the npm client, which makes one call at a time."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._numbers = itertools.count(1)
        self._process = subprocess.Popen(
            node.command("clients.js"),
            env=node.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        atexit.register(self._end)

    def call(self, asked: Mapping[str, Any]) -> Any:
        """Return what a call answers."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._turn:
            number = next(self._numbers)
            self._process.stdin.write(json.dumps({**asked, "id": number}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        assert line, "node has ended"
        told = json.loads(line)
        assert told["id"] == number
        if "error" in told:
            raise NodeRefusalError(told["error"])
        return told["answer"]

    def _end(self) -> None:
        self._process.communicate()


@functools.cache
def _process() -> _Process:
    return _Process()


class NodeMessages:
    """Calls methods of the npm client of one API version."""

    def __init__(self, version: str, transport: str, address: str) -> None:
        self._version = version
        self._types: Any = importlib.import_module(f"google.cloud.tasks_{version}")
        self._where = {"version": version, "transport": transport, "address": address}

    def call(self, method: str, request: Mapping[str, Any]) -> Any:
        """Call a method, named as in Python, and return what it answers: lists as a whole, batches as operations.

        Raises:
            NodeRefusalError: the client raised an error.
        """
        asked = self._named(_camel(method) + "Request")
        answered = self._named(_ANSWERS.get(method) or ("Queue" if method.endswith(("queue", "queues")) else "Task"))
        message = base64.b64encode(_serialized(asked, request)).decode()
        told = _process().call(
            {
                **self._where,
                "method": _camel(method)[0].lower() + _camel(method)[1:],
                "request": {"type": _full_name(asked), "message": message},
                "answer": _full_name(answered),
            }
        )
        return [_read(answered, each) for each in told] if isinstance(told, list) else _read(answered, told)

    def _named(self, name: str) -> Any:
        shared = _MESSAGES.get(name) or _MESSAGES.get(f"google.iam.v1.{name}")
        return shared or getattr(self._types, name)


def _serialized(kind: Any, fields: Mapping[str, Any]) -> bytes:
    made: bytes = kind.serialize(kind(fields)) if hasattr(kind, "serialize") else kind(**fields).SerializeToString()
    return made


def _read(kind: Any, text: str) -> Any:
    deserialize: Callable[[bytes], Any] = kind.deserialize if hasattr(kind, "deserialize") else kind.FromString
    return deserialize(base64.b64decode(text))


def _full_name(kind: Any) -> str:
    descriptor = kind.pb().DESCRIPTOR if hasattr(kind, "pb") else kind.DESCRIPTOR
    return str(descriptor.full_name)


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))
