"""The REST front: one endpoint for all versions. Which method a path stands for is known to ``routes``."""

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hopline_engine.core.cloud.errors import CloudTasksError, Code, invalid
from hopline_engine.queue.service import QueueService
from hopline_engine.queue_api.errors import HTTP_STATUS, as_cloud_error, error_body
from hopline_engine.queue_api.methods import METHODS, Call
from hopline_engine.queue_api.openapi import DOCUMENT_NAME, document
from hopline_engine.queue_api.routes import Matched, match
from hopline_engine.queue_api.shapes import SHAPES, EnumOf, Kind, Many, Scalar, Version
from hopline_engine.queue_api.wire import read_message, snake, write_message

BODY_LIMIT: Final = 16 * 1024 * 1024
"""Bytes of a body: a hundred tasks of average size, or one of the largest in base64."""
BODY_OVERRUN: Final = 16 * 1024 * 1024
"""Bytes over the limit that are read and thrown away: a client that is still sending would not see the refusal."""
BODY_SECONDS: Final = 30.0

_STANDARD: Final = frozenset(
    {
        *("alt", "$alt", "prettyPrint", "$prettyPrint", "fields", "$fields", "key", "access_token", "oauth_token"),
        *("quotaUser", "callback", "$callback", "uploadType", "upload_protocol", "$.xgafv", "$userProject"),
    }
)
"""Query parameters that every method of every Google API takes; they change nothing but the look of the answer."""

_DOCUMENTS: Final[Mapping[str, Version]] = {f"/{version}/{DOCUMENT_NAME}": version for version in Version}
"""Where the OpenAPI documents are."""


class RestApi:
    """Answers requests of any method. Paths begin with a version, or with ``projects`` for v2."""

    def __init__(self, service: QueueService) -> None:
        self._service = service

    async def answer(self, request: Request) -> Response:
        """Return the answer to one request; errors are told in the shape that clients understand."""
        try:
            return await self._answer(request)
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, clients understand nothing but their own errors
            return error_answer(as_cloud_error(error))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as an ASGI application."""
        request = Request(scope, receive)
        await (await self.answer(request))(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        documented = _DOCUMENTS.get(request.scope["path"])
        if documented is not None:
            return _json(document(documented))
        matched = match(request.method, request.scope["path"])
        query = _query(request)
        method = METHODS[matched.rule.method]
        shapes = SHAPES[matched.version]
        asked = read_message(shapes, method.request, await _asked(request, matched, query))
        fields = await method.handle(Call(self._service, matched.version, asked))
        numbers = "enum-encoding=int" in (query.get("$alt") or query.get("alt") or "")
        return _json(write_message(shapes, method.answer, fields, numbers=numbers))


def _query(request: Request) -> dict[str, str]:
    try:
        text = request.scope["query_string"].decode("ascii")
        return dict(parse_qsl(text, keep_blank_values=True, errors="strict"))
    except ValueError:
        raise invalid("The query is not valid.") from None


async def _asked(request: Request, matched: Matched, query: Mapping[str, str]) -> dict[str, Any]:
    """Return the JSON of a request message, put together from path, query and body."""
    rule = matched.rule
    body = await _body(request) if rule.body is not None or request.method == "POST" else b""
    if rule.body == "body":
        asked: dict[str, Any] = {"body": _buffered(request, body)}
    else:
        given = _parsed(body)
        asked = given if rule.body == "*" else {rule.body: given} if rule.body is not None else {}
    shape = SHAPES[matched.version][METHODS[rule.method].request]
    for name, value in query.items():
        if name in _STANDARD:
            continue
        field = snake(name)
        kind = shape.get(field)
        if kind is None or rule.body == "*":
            raise invalid(f'Invalid JSON payload received. Unknown name "{name[:100]}": Cannot bind query parameter.')
        asked[field] = _of_query(kind, value)
    for path, value in matched.bound.items():
        _bind(asked, path.split("."), value)
    return asked


def _of_query(kind: Kind, value: str) -> Any:
    """Return a parameter as JSON would have it."""
    if isinstance(kind, Many):
        return [value]
    if isinstance(kind, EnumOf) and value.isascii() and value.isdigit():
        return int(value[:9])
    return {} if kind is Scalar.JSON else value


def _bind(asked: dict[str, Any], path: Sequence[str], value: str) -> None:
    """Set a field that the path of the request decides; what the body says of it does not count."""
    for name in path[:-1]:
        inner = asked.get(name)
        if not isinstance(inner, dict):
            raise invalid(f"Invalid value at '{name}'")
        asked = inner
    asked[path[-1]] = value


def _buffered(request: Request, body: bytes) -> dict[str, Any]:
    """Return what is to be buffered: by the book in a message, by the guide the body as it is."""
    content_type = request.headers.get("content-type", "")
    if "json" in content_type or not content_type:
        try:
            given = _parsed(body)
        except CloudTasksError:
            given = {}
        inner = given.get("body") if given.keys() == {"body"} else None
        if isinstance(inner, dict):
            return inner
        if not given:
            return {}
    return {"contentType": content_type, "data": base64.b64encode(body).decode()}


async def _body(request: Request) -> bytes:
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= BODY_LIMIT:
                    body += chunk
                elif size > BODY_LIMIT + BODY_OVERRUN:
                    break
    except TimeoutError:
        raise CloudTasksError(Code.DEADLINE_EXCEEDED, "The request did not arrive in time.") from None
    if size > BODY_LIMIT:
        raise invalid(f"Request payload size exceeds the limit: {BODY_LIMIT} bytes.")
    return bytes(body)


def _parsed(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise invalid("Invalid JSON payload received. The body is not JSON.") from None
    if value == "":  # what the client for Node sends of a message without fields
        return {}
    if not isinstance(value, dict):
        raise invalid("Invalid JSON payload received. The body is not a JSON object.")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def error_answer(error: CloudTasksError) -> Response:
    """Return the answer that tells of an error."""
    headers = {"www-authenticate": "Bearer"} if error.status is Code.UNAUTHENTICATED else None
    return _json(error_body(error), HTTP_STATUS[error.status], headers)


def _json(value: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(body, status, headers, "application/json; charset=UTF-8")
