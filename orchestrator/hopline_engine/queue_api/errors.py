"""How errors look on the wire: the only table of HTTP statuses for canonical codes."""

import logging
from collections.abc import Mapping
from typing import Any, Final

from hopline.errors import HoplineError
from hopline_engine import clock
from hopline_engine.core.cloud.errors import CloudTasksError, Code
from hopline_engine.errors import UnavailableError
from hopline_engine.store.errors import OwnershipLostError, ReadTimeoutError, StoreClosedError

_log = logging.getLogger(__name__)

HTTP_STATUS: Final[Mapping[Code, int]] = {
    Code.OK: 200,
    Code.CANCELLED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}


def as_cloud_error(error: Exception) -> CloudTasksError:
    """Return any error as one that has a canonical code; what nobody expected is logged and says nothing."""
    match error:
        case CloudTasksError():
            return error
        case UnavailableError() | OwnershipLostError() | StoreClosedError() | ReadTimeoutError():
            return CloudTasksError(Code.UNAVAILABLE, error.message)
        case HoplineError():
            return CloudTasksError(Code.FAILED_PRECONDITION, error.message)
        case _:
            request = clock.token(8)
            _log.error("request %s failed", request, exc_info=error)
            return CloudTasksError(Code.INTERNAL, f"Internal error; the server's log says more at request {request}.")


def details_of(error: CloudTasksError) -> list[dict[str, Any]]:
    """Return the JSON of what an error says besides its message."""
    if error.help_url is None:
        return []
    link = {"description": "Cloud Tasks API reference", "url": error.help_url}
    return [{"@type": "type.googleapis.com/google.rpc.Help", "links": [link]}]


def error_body(error: CloudTasksError) -> dict[str, Any]:
    """Return the JSON body of an answer that tells of an error."""
    told: dict[str, Any] = {
        "code": HTTP_STATUS[error.status],
        "message": error.message,
        "status": error.status.name,
    }
    details = details_of(error)
    if details:
        told["details"] = details
    return {"error": told}
