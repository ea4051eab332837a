"""The messages of each API version: their fields by ``snake_case`` name, and what a field holds.

Written from the published reference. What the service itself works with has the shape of v2; ``versions`` translates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final


class Version(StrEnum):
    """A version of the API."""

    V2 = "v2"
    V2BETA3 = "v2beta3"
    V2BETA2 = "v2beta2"


class Scalar(Enum):
    """What a field holds."""

    STRING = "TYPE_STRING"
    BOOL = "TYPE_BOOL"
    INT32 = "TYPE_INT32"
    INT64 = "TYPE_INT64"
    DOUBLE = "TYPE_DOUBLE"
    BYTES = "TYPE_BYTES"
    DURATION = "google.protobuf.Duration"
    TIMESTAMP = "google.protobuf.Timestamp"
    MASK = "google.protobuf.FieldMask"
    HEADERS = "map<string, string>"
    JSON = "JSON"
    """Any JSON, kept as it is."""


@dataclass(frozen=True, slots=True)
class EnumOf:
    """One of some names; the number of each is its position, and the first means that nothing was said."""

    name: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Of:
    """A message."""

    message: str


@dataclass(frozen=True, slots=True)
class Many:
    """Any number of something."""

    of: "Scalar | EnumOf | Of"


@dataclass(frozen=True, slots=True)
class Optional:
    """Something of which it counts whether it was said, also when it is empty."""

    of: "Scalar | EnumOf"


Kind = Scalar | EnumOf | Of | Many | Optional
Shape = Mapping[str, Kind]
Shapes = Mapping[str, Shape]

_S, _I32, _I64, _D, _B = Scalar.STRING, Scalar.INT32, Scalar.INT64, Scalar.DOUBLE, Scalar.BYTES
_TIME, _SPAN = Scalar.TIMESTAMP, Scalar.DURATION

_METHOD: Final = EnumOf(
    "HttpMethod", ("HTTP_METHOD_UNSPECIFIED", "POST", "GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS")
)
_VIEW: Final = EnumOf("View", ("VIEW_UNSPECIFIED", "BASIC", "FULL"))
_STATE: Final = EnumOf("State", ("STATE_UNSPECIFIED", "RUNNING", "PAUSED", "DISABLED"))
_TYPE: Final = EnumOf("Type", ("TYPE_UNSPECIFIED", "PULL", "PUSH"))
_SCHEME: Final = EnumOf("Scheme", ("SCHEME_UNSPECIFIED", "HTTP", "HTTPS"))
_LOG_TYPE: Final = EnumOf("LogType", ("LOG_TYPE_UNSPECIFIED", "ADMIN_READ", "DATA_WRITE", "DATA_READ"))
_MODE: Final = EnumOf("UriOverrideEnforceMode", ("URI_OVERRIDE_ENFORCE_MODE_UNSPECIFIED", "IF_NOT_EXISTS", "ALWAYS"))

_TARGETS: Final[Shapes] = {
    "AppEngineRouting": {"service": _S, "version": _S, "instance": _S, "host": _S},
    "AppEngineHttpRequest": {
        "http_method": _METHOD,
        "app_engine_routing": Of("AppEngineRouting"),
        "relative_uri": _S,
        "headers": Scalar.HEADERS,
        "body": _B,
    },
    "HttpRequest": {
        "url": _S,
        "http_method": _METHOD,
        "headers": Scalar.HEADERS,
        "body": _B,
        "oauth_token": Of("OAuthToken"),
        "oidc_token": Of("OidcToken"),
    },
    "PullMessage": {"payload": _B, "tag": _S},
    "OAuthToken": {"service_account_email": _S, "scope": _S},
    "OidcToken": {"service_account_email": _S, "audience": _S},
    "HttpTarget": {
        "uri_override": Of("UriOverride"),
        "http_method": _METHOD,
        "header_overrides": Many(Of("HeaderOverride")),
        "oauth_token": Of("OAuthToken"),
        "oidc_token": Of("OidcToken"),
    },
    "HeaderOverride": {"header": Of("Header")},
    "Header": {"key": _S, "value": _S},
    "UriOverride": {
        "scheme": Optional(_SCHEME),
        "host": Optional(_S),
        "port": Optional(_I64),
        "path_override": Of("PathOverride"),
        "query_override": Of("QueryOverride"),
        "uri_override_enforce_mode": _MODE,
    },
    "PathOverride": {"path": _S},
    "QueryOverride": {"query_params": _S},
}

_QUEUE_PARTS: Final[Shapes] = {
    "RateLimits": {"max_dispatches_per_second": _D, "max_burst_size": _I32, "max_concurrent_dispatches": _I32},
    "RetryConfig": {
        "max_attempts": _I32,
        "max_retry_duration": _SPAN,
        "min_backoff": _SPAN,
        "max_backoff": _SPAN,
        "max_doublings": _I32,
    },
    "StackdriverLoggingConfig": {"sampling_ratio": _D},
    "QueueStats": {
        "tasks_count": _I64,
        "oldest_estimated_arrival_time": _TIME,
        "executed_last_minute_count": _I64,
        "concurrent_dispatches_count": _I64,
        "effective_execution_rate": _D,
    },
}

_ATTEMPTS: Final[Shapes] = {
    "Attempt": {
        "schedule_time": _TIME,
        "dispatch_time": _TIME,
        "response_time": _TIME,
        "response_status": Of("Status"),
    },
    "Status": {"code": _I32, "message": _S, "details": Many(Scalar.JSON)},
}

_TASK: Final[Shape] = {
    "name": _S,
    "app_engine_http_request": Of("AppEngineHttpRequest"),
    "http_request": Of("HttpRequest"),
    "schedule_time": _TIME,
    "create_time": _TIME,
    "dispatch_deadline": _SPAN,
    "dispatch_count": _I32,
    "response_count": _I32,
    "first_attempt": Of("Attempt"),
    "last_attempt": Of("Attempt"),
    "view": _VIEW,
    "retry_config": Of("RetryConfig"),
}

_REQUESTS: Final[Shapes] = {
    "Empty": {},
    "NameRequest": {"name": _S},
    "GetQueueRequest": {"name": _S, "read_mask": Scalar.MASK},
    "ListQueuesRequest": {
        "parent": _S,
        "filter": _S,
        "page_size": _I32,
        "page_token": _S,
        "read_mask": Scalar.MASK,
    },
    "ListQueuesResponse": {"queues": Many(Of("Queue")), "next_page_token": _S},
    "CreateQueueRequest": {"parent": _S, "queue": Of("Queue")},
    "UpdateQueueRequest": {"queue": Of("Queue"), "update_mask": Scalar.MASK},
    "ListTasksRequest": {"parent": _S, "response_view": _VIEW, "page_size": _I32, "page_token": _S},
    "ListTasksResponse": {"tasks": Many(Of("Task")), "next_page_token": _S},
    "TaskRequest": {"name": _S, "response_view": _VIEW},
    "CreateTaskRequest": {"parent": _S, "task": Of("Task"), "response_view": _VIEW},
    "BatchCreateTasksRequest": {"parent": _S, "requests": Many(Of("CreateTaskRequest")), "request_id": _S},
    "BatchDeleteTasksRequest": {"parent": _S, "names": Many(_S), "request_id": _S},
    "BufferTaskRequest": {"queue": _S, "task_id": _S, "body": Of("HttpBody")},
    "BufferTaskResponse": {"task": Of("Task")},
    "HttpBody": {"content_type": _S, "data": _B, "extensions": Many(Scalar.JSON)},
    "LeaseTasksRequest": {
        "parent": _S,
        "max_tasks": _I32,
        "lease_duration": _SPAN,
        "response_view": _VIEW,
        "filter": _S,
    },
    "LeaseTasksResponse": {"tasks": Many(Of("Task"))},
    "AcknowledgeTaskRequest": {"name": _S, "schedule_time": _TIME},
    "RenewLeaseRequest": {"name": _S, "schedule_time": _TIME, "lease_duration": _SPAN, "response_view": _VIEW},
    "CancelLeaseRequest": {"name": _S, "schedule_time": _TIME, "response_view": _VIEW},
    "GetIamPolicyRequest": {"resource": _S, "options": Of("GetPolicyOptions")},
    "SetIamPolicyRequest": {"resource": _S, "policy": Of("Policy"), "update_mask": Scalar.MASK},
    "TestIamPermissionsRequest": {"resource": _S, "permissions": Many(_S)},
    "TestIamPermissionsResponse": {"permissions": Many(_S)},
    "CmekConfig": {"name": _S, "kms_key": _S},
    "UpdateCmekConfigRequest": {"cmek_config": Of("CmekConfig"), "update_mask": Scalar.MASK},
    "ListLocationsRequest": {
        "name": _S,
        "filter": _S,
        "page_size": _I32,
        "page_token": _S,
        "extra_location_types": Many(_S),
    },
    "ListLocationsResponse": {"locations": Many(Of("Location")), "next_page_token": _S},
    "Location": {"name": _S, "location_id": _S, "display_name": _S, "labels": Scalar.HEADERS, "metadata": Scalar.JSON},
    "Operation": {
        "name": _S,
        "metadata": Scalar.JSON,
        "done": Scalar.BOOL,
        "error": Of("Status"),
        "response": Scalar.JSON,
    },
    # Hopline's own: what the original does not keep.
    "DeadTask": _TASK,
    "ListDeadTasksResponse": {"dead_tasks": Many(Of("Task")), "next_page_token": _S},
    "ListAttemptsResponse": {"attempts": Many(Of("KeptAttempt"))},
    "KeptAttempt": {
        "number": _I32,
        "dispatch_time": _TIME,
        "end_time": _TIME,
        "http_status": _I32,
        "status": Of("Status"),
        "response_head": _S,
    },
}

_IAM: Final[Shapes] = {
    "GetPolicyOptions": {"requested_policy_version": _I32},
    "Policy": {
        "version": _I32,
        "bindings": Many(Of("Binding")),
        "audit_configs": Many(Of("AuditConfig")),
        "etag": _B,
    },
    "Binding": {"role": _S, "members": Many(_S), "condition": Of("Expr")},
    "Expr": {"expression": _S, "title": _S, "description": _S, "location": _S},
    "AuditConfig": {"service": _S, "audit_log_configs": Many(Of("AuditLogConfig"))},
    "AuditLogConfig": {"log_type": _LOG_TYPE, "exempted_members": Many(_S)},
}

_V2: Final[Shapes] = {
    **_TARGETS,
    **_QUEUE_PARTS,
    **_ATTEMPTS,
    **_REQUESTS,
    **_IAM,
    "Queue": {
        "name": _S,
        "app_engine_routing_override": Of("AppEngineRouting"),
        "http_target": Of("HttpTarget"),
        "rate_limits": Of("RateLimits"),
        "retry_config": Of("RetryConfig"),
        "state": _STATE,
        "purge_time": _TIME,
        "stackdriver_logging_config": Of("StackdriverLoggingConfig"),
    },
    "Task": _TASK,
}

_V2BETA3: Final[Shapes] = {
    **_V2,
    "Queue": {
        "name": _S,
        "app_engine_http_queue": Of("AppEngineHttpQueue"),
        "http_target": Of("HttpTarget"),
        "rate_limits": Of("RateLimits"),
        "retry_config": Of("RetryConfig"),
        "state": _STATE,
        "purge_time": _TIME,
        "task_ttl": _SPAN,
        "tombstone_ttl": _SPAN,
        "stackdriver_logging_config": Of("StackdriverLoggingConfig"),
        "type": _TYPE,
        "stats": Of("QueueStats"),
    },
    "AppEngineHttpQueue": {"app_engine_routing_override": Of("AppEngineRouting")},
    "Task": {**_TASK, "pull_message": Of("PullMessage")},
}

_V2BETA2: Final[Shapes] = {
    **_V2,
    "Queue": {
        "name": _S,
        "app_engine_http_target": Of("AppEngineHttpTarget"),
        "pull_target": Of("PullTarget"),
        "http_target": Of("HttpTarget"),
        "rate_limits": Of("RateLimits"),
        "retry_config": Of("RetryConfig"),
        "state": _STATE,
        "purge_time": _TIME,
        "task_ttl": _SPAN,
        "tombstone_ttl": _SPAN,
        "stats": Of("QueueStats"),
    },
    "AppEngineHttpTarget": {"app_engine_routing_override": Of("AppEngineRouting")},
    "PullTarget": {},
    "RateLimits": {"max_tasks_dispatched_per_second": _D, "max_burst_size": _I32, "max_concurrent_tasks": _I32},
    "RetryConfig": {
        "max_attempts": _I32,
        "unlimited_attempts": Scalar.BOOL,
        "max_retry_duration": _SPAN,
        "min_backoff": _SPAN,
        "max_backoff": _SPAN,
        "max_doublings": _I32,
    },
    "AppEngineHttpRequest": {
        "http_method": _METHOD,
        "app_engine_routing": Of("AppEngineRouting"),
        "relative_url": _S,
        "headers": Scalar.HEADERS,
        "payload": _B,
    },
    "Task": {
        "name": _S,
        "app_engine_http_request": Of("AppEngineHttpRequest"),
        "pull_message": Of("PullMessage"),
        "http_request": Of("HttpRequest"),
        "schedule_time": _TIME,
        "create_time": _TIME,
        "status": Of("TaskStatus"),
        "view": _VIEW,
        "retry_config": Of("RetryConfig"),
    },
    "TaskStatus": {
        "attempt_dispatch_count": _I32,
        "attempt_response_count": _I32,
        "first_attempt_status": Of("Attempt"),
        "last_attempt_status": Of("Attempt"),
    },
}

SHAPES: Final[Mapping[Version, Shapes]] = {
    Version.V2: _V2,
    Version.V2BETA3: _V2BETA3,
    Version.V2BETA2: _V2BETA2,
}
