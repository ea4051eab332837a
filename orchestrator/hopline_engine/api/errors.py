"""How errors look over HTTP: the only table of status codes, and the last resort for what nobody expected."""

import json
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hopline.errors import HoplineError
from hopline_engine import clock
from hopline_engine.errors import ConflictError, InvalidError, NotFoundError, StoreUnavailableError, UnavailableError
from hopline_engine.store.errors import ChangesRefusedError, OwnershipLostError, ReadTimeoutError, StoreClosedError

_log = logging.getLogger(__name__)


class InvalidJsonError(HoplineError):
    """The body of a request is not JSON that can be stored."""

    code = "invalid-json"


class InvalidRequestError(HoplineError):
    """A body or query does not have the shape that its route takes."""

    code = "invalid-request"


class BodyTooLargeError(HoplineError):
    """The body of a request is larger than its route takes."""

    code = "body-too-large"


class SlowBodyError(HoplineError):
    """The body of a request did not arrive in time."""

    code = "body-too-slow"


class UnauthorizedError(HoplineError):
    """The request does not carry the token it needs."""

    code = "unauthorized"


class ForeignOriginError(HoplineError):
    """A page of another site sent the request."""

    code = "foreign-origin"


class UnknownHostError(HoplineError):
    """The request was meant for a name that is not this server's."""

    code = "unknown-host"


STATUS: Mapping[type[HoplineError], int] = {
    InvalidJsonError: 400,
    UnauthorizedError: 401,
    ForeignOriginError: 403,
    NotFoundError: 404,
    SlowBodyError: 408,
    ConflictError: 409,
    BodyTooLargeError: 413,
    UnknownHostError: 421,
    InvalidError: 422,
    InvalidRequestError: 422,
    UnavailableError: 503,
    OwnershipLostError: 503,
    ReadTimeoutError: 503,
    StoreClosedError: 503,
}
"""Status of an error: that of the nearest of its classes."""

_HEADERS: Mapping[int, Mapping[str, str]] = {
    401: {"www-authenticate": "Bearer"},
    408: {"connection": "close"},  # the rest of the body is not waited for
    413: {"connection": "close"},
    503: {"retry-after": "1"},
}
_CODES: Mapping[int, str] = {404: "not-found", 405: "method-not-allowed"}


def error_response(
    status: int, code: str, message: str, hint: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """Return the one shape that every error has."""
    body = json.dumps({"error": {"code": code, "message": message, "hint": hint}})
    return Response(body, status, {**_HEADERS.get(status, {}), **(headers or {})}, "application/json")


def answer_to(error: HoplineError) -> Response:
    """Return the answer to a request that ended in *error*."""
    if isinstance(error, ChangesRefusedError):  # says what the database said, which is nothing for callers
        error = StoreUnavailableError(reason="what is known of the run has to be read again")
    status = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), None)
    if status is None:
        return _unexpected(error)
    return error_response(status, error.code, str(error), error.hint)


def problems_of(details: Iterable[ErrorDetails | Mapping[str, Any]]) -> str:
    """Return one line that says of each invalid field what is wrong with it."""
    lines = []
    for detail in details:
        place = ".".join(str(part) for part in detail["loc"] if part not in ("body", "query", "path"))
        message = str(detail["msg"]).removeprefix("Value error, ")
        lines.append(f"{place}: {message}" if place else message)
    return "; ".join(lines)


def _unexpected(error: Exception) -> Response:
    """Log *error* with its traceback; the answer names the log record and nothing else."""
    request_id = clock.token(8)
    _log.error("request %s failed", request_id, exc_info=error)
    message = f"something went wrong inside the server; its log says more at request {request_id}"
    return error_response(500, "internal-error", message, headers={"x-request-id": request_id})


async def _answer(request: Request, error: Exception) -> Response:
    match error:
        case HoplineError():
            return answer_to(error)
        case RequestValidationError():
            return answer_to(InvalidRequestError(problems_of(error.errors())))
        case HTTPException():  # what routing raises: no such path, or not with this method
            message = f"{request.method} {request.scope['path']}: {error.detail}"
            return error_response(error.status_code, _CODES[error.status_code], message, headers=error.headers)
        case _:
            return _unexpected(error)


HANDLERS: dict[int | type[Exception], Callable[[Request, Any], Coroutine[Any, Any, Response]]] = dict.fromkeys(
    (HoplineError, RequestValidationError, HTTPException), _answer
)


class LastResort:
    """Answers 500 without a word about the cause when a route fails in a way that nobody expected."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        started = False

        async def note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, note)
        except ClientDisconnect:
            _log.debug("the client went away during %s", scope.get("path"))
        except Exception as error:  # noqa: BLE001 - the last resort
            response = _unexpected(error)
            if scope["type"] == "http" and not started:
                await response(scope, receive, send)
