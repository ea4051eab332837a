"""The gRPC front: a thin translator. A message becomes the JSON of the REST API and goes the same way as that.

Needs ``hopline[grpc]``: the messages are those of the package ``google-cloud-tasks``, which Google's clients use too.
"""

import importlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hmac import compare_digest
from typing import Any, Final

import grpc
import grpc.aio
from google.cloud.location import locations_pb2
from google.iam.v1 import iam_policy_pb2, policy_pb2
from google.longrunning import operations_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, empty_pb2
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError, SerializeToJsonError
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection

from hopline_engine.core.cloud.errors import CloudTasksError, Code, invalid
from hopline_engine.queue.service import QueueService
from hopline_engine.queue_api.errors import as_cloud_error
from hopline_engine.queue_api.methods import METHODS, Call
from hopline_engine.queue_api.shapes import SHAPES, Version
from hopline_engine.queue_api.wire import read_message, write_message

MESSAGE_LIMIT: Final = 32 * 1024 * 1024
_DETAILS: Final = "grpc-status-details-bin"
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}

_QUEUES: Final = {
    "ListQueues": ("ListQueuesRequest", "ListQueuesResponse"),
    "GetQueue": ("GetQueueRequest", "Queue"),
    "CreateQueue": ("CreateQueueRequest", "Queue"),
    "UpdateQueue": ("UpdateQueueRequest", "Queue"),
    "DeleteQueue": ("DeleteQueueRequest", "Empty"),
    "PurgeQueue": ("PurgeQueueRequest", "Queue"),
    "PauseQueue": ("PauseQueueRequest", "Queue"),
    "ResumeQueue": ("ResumeQueueRequest", "Queue"),
    "GetIamPolicy": ("GetIamPolicyRequest", "Policy"),
    "SetIamPolicy": ("SetIamPolicyRequest", "Policy"),
    "TestIamPermissions": ("TestIamPermissionsRequest", "TestIamPermissionsResponse"),
}
_TASKS: Final = {
    "ListTasks": ("ListTasksRequest", "ListTasksResponse"),
    "GetTask": ("GetTaskRequest", "Task"),
    "CreateTask": ("CreateTaskRequest", "Task"),
    "DeleteTask": ("DeleteTaskRequest", "Empty"),
    "RunTask": ("RunTaskRequest", "Task"),
}
_NEW: Final = {
    "BatchCreateTasks": ("BatchCreateTasksRequest", "Operation"),
    "BatchDeleteTasks": ("BatchDeleteTasksRequest", "Operation"),
    "GetCmekConfig": ("GetCmekConfigRequest", "CmekConfig"),
    "UpdateCmekConfig": ("UpdateCmekConfigRequest", "CmekConfig"),
}
_LEASES: Final = {
    "LeaseTasks": ("LeaseTasksRequest", "LeaseTasksResponse"),
    "AcknowledgeTask": ("AcknowledgeTaskRequest", "Empty"),
    "RenewLease": ("RenewLeaseRequest", "Task"),
    "CancelLease": ("CancelLeaseRequest", "Task"),
}
_SERVED: Final[Mapping[Version, Mapping[str, tuple[str, str]]]] = {
    Version.V2: {**_QUEUES, **_TASKS, **_NEW},
    Version.V2BETA3: {**_QUEUES, **_TASKS, **_NEW},
    Version.V2BETA2: {**_QUEUES, **_TASKS, **_LEASES},
}
"""Methods that each version has over gRPC, with the messages of request and answer."""

_SHARED: Final[Mapping[str, type[Message]]] = {
    "Empty": empty_pb2.Empty,
    "Policy": policy_pb2.Policy,
    "GetIamPolicyRequest": iam_policy_pb2.GetIamPolicyRequest,
    "SetIamPolicyRequest": iam_policy_pb2.SetIamPolicyRequest,
    "TestIamPermissionsRequest": iam_policy_pb2.TestIamPermissionsRequest,
    "TestIamPermissionsResponse": iam_policy_pb2.TestIamPermissionsResponse,
    "Operation": operations_pb2.Operation,
    "GetOperationRequest": operations_pb2.GetOperationRequest,
    "ListLocationsRequest": locations_pb2.ListLocationsRequest,
    "ListLocationsResponse": locations_pb2.ListLocationsResponse,
    "GetLocationRequest": locations_pb2.GetLocationRequest,
    "Location": locations_pb2.Location,
}
_MIXINS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "google.cloud.location.Locations": {
        "ListLocations": ("ListLocationsRequest", "ListLocationsResponse"),
        "GetLocation": ("GetLocationRequest", "Location"),
    },
    "google.longrunning.Operations": {"GetOperation": ("GetOperationRequest", "Operation")},
}

Context = grpc.aio.ServicerContext[Any, Any]
Answer = Callable[[Message, Context], Awaitable[Message]]


@dataclass(frozen=True, slots=True)
class _Method:
    name: str
    request: type[Message]
    answer: type[Message]


class GrpcServer:
    """Serves all versions on one port."""

    def __init__(self, service: QueueService, api_token: str | None) -> None:
        """Make a server; if there is an *api_token*, callers have to show it."""
        self._service = service
        self._token = api_token
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", MESSAGE_LIMIT),
                ("grpc.max_send_message_length", 2 * MESSAGE_LIMIT),
                ("grpc.so_reuseport", 0),
            ]
        )
        own = [self._add(_service(version), _SERVED[version], version) for version in Version]
        mixed_in = [self._add(name, methods, Version.V2) for name, methods in _MIXINS.items()]
        reflection.enable_server_reflection([*own, *mixed_in, reflection.SERVICE_NAME], self._server)

    async def serve(self, host: str, port: int) -> int:
        """Listen, and return the port.

        Raises:
            OSError: the port is taken.
        """
        try:
            bound = self._server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except RuntimeError as error:
            raise OSError(str(error)) from error
        await self._server.start()
        return bound

    async def stop(self, grace_seconds: float) -> None:
        """Take no more calls, and wait a while for those that are under way."""
        await self._server.stop(grace_seconds)

    def _add(self, service: str, methods: Mapping[str, tuple[str, str]], version: Version) -> str:
        typed = [
            _Method(name, message(version, asked), message(version, given)) for name, (asked, given) in methods.items()
        ]
        if service == _service(version):
            _describe(service, typed)
        handlers = {
            method.name: grpc.unary_unary_rpc_method_handler(
                self._answer(method, version),
                request_deserializer=method.request.FromString,
                response_serializer=method.answer.SerializeToString,
            )
            for method in typed
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        return service

    def _answer(self, method: _Method, version: Version) -> Answer:
        async def answer(request: Message, context: Context) -> Message:
            try:
                self._check_token(context)
                return await call(self._service, version, method.name, request, method.answer)
            except Exception as error:
                await _abort(context, as_cloud_error(error))
                raise

        return answer

    def _check_token(self, context: Context) -> None:
        if self._token is None:
            return
        metadata = {str(key): value for key, value in context.invocation_metadata() or ()}
        given = str(metadata.get("authorization", "")).removeprefix("Bearer ")
        if not compare_digest(given.encode(), self._token.encode()):
            raise CloudTasksError(Code.UNAUTHENTICATED, "The request needs the API token.")


async def call(service: QueueService, version: Version, name: str, request: Message, answer: type[Message]) -> Message:
    """Call a method with a message, and return the message that it answers.

    Raises:
        CloudTasksError: the service refuses.
    """
    method = METHODS[name]
    shapes = SHAPES[version]
    asked = read_message(shapes, method.request, to_json(request))
    if name == "UpdateQueue":
        _say_zero(asked)
    fields = await method.handle(Call(service, version, asked))
    return to_message(write_message(shapes, method.answer, fields), answer)


def to_json(request: Message) -> dict[str, Any]:
    """Return the JSON of a message.

    Raises:
        CloudTasksError: there is none: a time out of bounds, or text that is not Unicode.
    """
    try:
        found: dict[str, Any] = MessageToDict(request)
    except (SerializeToJsonError, ValueError, TypeError) as error:
        raise invalid(f"The request has a value that is not valid: {error}") from None
    return found


def to_message(body: Mapping[str, Any], kind: type[Message]) -> Message:
    """Return the message that some JSON is; what the message has no field for is left out."""
    try:
        return ParseDict(dict(body), kind(), ignore_unknown_fields=True)
    except ParseError as error:  # of what was stored as any JSON: an operation of a version that gRPC has not
        raise invalid(f"The answer cannot be told over gRPC: {error}") from None


def message(version: Version, name: str) -> type[Message]:
    """Return the class of a message."""
    if name in _SHARED:
        return _SHARED[name]
    types = importlib.import_module(f"google.cloud.tasks_{version}.types")
    found: type[Message] = getattr(types, name).pb()
    return found


def _say_zero(asked: dict[str, Any]) -> None:
    """Say that doublings are none, where the mask names them: on this wire zero is not said."""
    if "retry_config.max_doublings" in asked.get("update_mask", ()):
        asked.setdefault("queue", {}).setdefault("retry_config", {}).setdefault("max_doublings", 0)


async def _abort(context: Context, error: CloudTasksError) -> None:
    details: tuple[tuple[str, bytes], ...] = ()
    if error.help_url is not None:
        status = status_pb2.Status(code=error.status, message=error.message)
        link = error_details_pb2.Help.Link(description="Cloud Tasks API reference", url=error.help_url)
        status.details.add().Pack(error_details_pb2.Help(links=[link]))
        details = ((_DETAILS, status.SerializeToString()),)
    await context.abort(_CODES[error.status], error.message, details)


def _service(version: Version) -> str:
    return f"google.cloud.tasks.{version}.CloudTasks"


def _describe(service: str, methods: list[_Method]) -> None:
    """Make a service known to server reflection: the package has its messages, and not the service itself."""
    pool = descriptor_pool.Default()
    package, _, name = service.rpartition(".")
    file = descriptor_pb2.FileDescriptorProto(
        name=f"hopline/{package.replace('.', '_')}.proto", package=package, syntax="proto3"
    )
    described = file.service.add(name=name)
    for method in methods:
        asked, given = method.request.DESCRIPTOR, method.answer.DESCRIPTOR
        described.method.add(name=method.name, input_type=f".{asked.full_name}", output_type=f".{given.full_name}")
        for depended in (asked.file.name, given.file.name):
            if depended not in file.dependency:
                file.dependency.append(depended)
    pool.Add(file)
