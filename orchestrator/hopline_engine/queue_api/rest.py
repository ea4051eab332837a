"""The REST front: one endpoint for all versions, routed by what the published reference says of paths."""

import asyncio
import base64
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from hopline_engine.core.cloud.errors import CloudTasksError, Code, invalid
from hopline_engine.queue.service import QueueService
from hopline_engine.queue_api.errors import HTTP_STATUS, as_cloud_error, error_body
from hopline_engine.queue_api.methods import METHODS, Call
from hopline_engine.queue_api.shapes import SHAPES, EnumOf, Kind, Many, Scalar, Version
from hopline_engine.queue_api.wire import read_message, snake, write_message

BODY_LIMIT: Final = 16 * 1024 * 1024
"""Bytes of a body: a hundred tasks of average size, or one of the largest in base64."""
BODY_SECONDS: Final = 30.0

_STANDARD: Final = frozenset(
    {
        *("alt", "$alt", "prettyPrint", "$prettyPrint", "fields", "$fields", "key", "access_token", "oauth_token"),
        *("quotaUser", "callback", "$callback", "uploadType", "upload_protocol", "$.xgafv", "$userProject"),
    }
)
"""Query parameters that every method of every Google API takes; they change nothing but the look of the answer."""

_Q: Final = r"projects/[^/]+/locations/[^/]+/queues/[^/:]+"
_L: Final = r"projects/[^/]+/locations/[^/:]+"
_T: Final = rf"{_Q}/tasks/[^/:]+"
_D: Final = rf"({_Q})/deadTasks/([^/:]+)"
_ALL: Final = frozenset(Version)
_V2BETA2: Final = frozenset({Version.V2BETA2})


class _Rule(NamedTuple):
    verb: str
    path: re.Pattern[str]
    method: str
    names: tuple[str, ...]
    """Which fields of the request the groups of the path are; dots lead into messages."""
    body: str | None
    """Which field the body is; ``*`` for the request itself, ``None`` for no body."""
    versions: frozenset[Version]


def _rule(
    verb: str,
    path: str,
    method: str,
    names: str = "name",
    body: str | None = None,
    versions: frozenset[Version] = _ALL,
) -> _Rule:
    return _Rule(verb, re.compile(path), method, tuple(names.split()), body, versions)


_RULES: Final = (
    _rule("POST", rf"({_Q})/tasks", "CreateTask", "parent", "*"),
    _rule("GET", rf"({_T})", "GetTask"),
    _rule("DELETE", rf"({_T})", "DeleteTask"),
    _rule("GET", rf"({_Q})/tasks", "ListTasks", "parent"),
    _rule("POST", rf"({_T}):run", "RunTask", body="*"),
    _rule("POST", rf"({_Q})/tasks:batchCreate", "BatchCreateTasks", "parent", "*"),
    _rule("POST", rf"({_Q})/tasks:batchDelete", "BatchDeleteTasks", "parent", "*"),
    _rule("POST", rf"({_Q})/tasks:buffer", "BufferTask", "queue", "body"),
    _rule("POST", rf"({_Q})/tasks/([^/:]*):buffer", "BufferTask", "queue task_id", "body"),
    _rule("POST", rf"({_Q})/tasks:lease", "LeaseTasks", "parent", "*", _V2BETA2),
    _rule("POST", rf"({_T}):acknowledge", "AcknowledgeTask", body="*", versions=_V2BETA2),
    _rule("POST", rf"({_T}):renewLease", "RenewLease", body="*", versions=_V2BETA2),
    _rule("POST", rf"({_T}):cancelLease", "CancelLease", body="*", versions=_V2BETA2),
    _rule("GET", rf"({_L})/queues", "ListQueues", "parent"),
    _rule("POST", rf"({_L})/queues", "CreateQueue", "parent", "queue"),
    _rule("GET", rf"({_Q})", "GetQueue"),
    _rule("PATCH", rf"({_Q})", "UpdateQueue", "queue.name", "queue"),
    _rule("DELETE", rf"({_Q})", "DeleteQueue"),
    _rule("POST", rf"({_Q}):purge", "PurgeQueue", body="*"),
    _rule("POST", rf"({_Q}):pause", "PauseQueue", body="*"),
    _rule("POST", rf"({_Q}):resume", "ResumeQueue", body="*"),
    _rule("POST", rf"({_Q}):getIamPolicy", "GetIamPolicy", "resource", "*"),
    _rule("POST", rf"({_Q}):setIamPolicy", "SetIamPolicy", "resource", "*"),
    _rule("POST", rf"({_Q}):testIamPermissions", "TestIamPermissions", "resource", "*"),
    _rule("GET", rf"({_L}/cmekConfig)", "GetCmekConfig"),
    _rule("PATCH", rf"({_L}/cmekConfig)", "UpdateCmekConfig", "cmek_config.name", "cmek_config"),
    _rule("GET", rf"({_L}/operations/[^/:]+)", "GetOperation"),
    _rule("GET", r"(projects/[^/]+)/locations", "ListLocations"),
    _rule("GET", rf"({_L})", "GetLocation"),
    _rule("GET", rf"({_Q})/deadTasks", "ListDeadTasks", "parent"),
    _rule("POST", rf"{_D}:run", "RunDeadTask", "name task", "*"),
    _rule("DELETE", _D, "DeleteDeadTask", "name task"),
    _rule("GET", rf"({_T})/attempts", "ListAttempts", "parent"),
)


class _Matched(NamedTuple):
    rule: _Rule
    version: Version
    bound: dict[str, str]


class RestApi:
    """Answers requests of any method. Paths begin with a version, or with ``projects`` for v2."""

    def __init__(self, service: QueueService) -> None:
        self._service = service

    async def answer(self, request: Request) -> Response:
        """Answer one request; errors are told in the shape that clients understand."""
        try:
            return await self._answer(request)
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, clients understand nothing but their own errors
            told = as_cloud_error(error)
            return _json(error_body(told), HTTP_STATUS[told.status])

    async def _answer(self, request: Request) -> Response:
        matched = _match(request.method, request.scope["path"])
        query = _query(request)
        method = METHODS[matched.rule.method]
        shapes = SHAPES[matched.version]
        asked = read_message(shapes, method.request, await _asked(request, matched, query))
        fields = await method.handle(Call(self._service, matched.version, asked))
        if method.answer == "Json":
            return _json(fields)
        numbers = "enum-encoding=int" in (query.get("$alt") or query.get("alt") or "")
        return _json(write_message(shapes, method.answer, fields, numbers=numbers))


def _match(verb: str, path: str) -> _Matched:
    first, _, rest = path.lstrip("/").partition("/")
    # Firebase's tools leave the version out.
    version, name = (Version.V2, path.lstrip("/")) if first == "projects" else (_version(first), rest)
    others: set[str] = set()
    for rule in _RULES:
        match = rule.path.fullmatch(name) if version in rule.versions else None
        if match is None:
            continue
        if rule.verb == verb:
            return _Matched(rule, version, _bound(rule, match))
        others.add(rule.verb)
    if others:
        raise CloudTasksError(Code.UNIMPLEMENTED, f"Method {verb} is not allowed here; {', '.join(sorted(others))} is.")
    raise CloudTasksError(Code.NOT_FOUND, "Requested entity was not found.")


def _version(name: str) -> Version:
    try:
        return Version(name)
    except ValueError:
        raise CloudTasksError(Code.NOT_FOUND, "Requested entity was not found.") from None


def _bound(rule: _Rule, match: re.Match[str]) -> dict[str, str]:
    bound = dict(zip(rule.names, match.groups(), strict=True))
    task = bound.pop("task", None)  # of a dead one, whose path is not that of a task
    if task is not None:
        bound["name"] = f"{bound['name']}/tasks/{task}"
    return bound


def _query(request: Request) -> dict[str, str]:
    try:
        text = request.scope["query_string"].decode("ascii")
        return dict(parse_qsl(text, keep_blank_values=True, errors="strict"))
    except ValueError:
        raise invalid("The query is not valid.") from None


async def _asked(request: Request, matched: _Matched, query: Mapping[str, str]) -> dict[str, Any]:
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
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_LIMIT:
                    raise invalid(f"Request payload size exceeds the limit: {BODY_LIMIT} bytes.")
    except TimeoutError:
        raise CloudTasksError(Code.DEADLINE_EXCEEDED, "The request did not arrive in time.") from None
    return bytes(body)


def _parsed(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        value = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise invalid("Invalid JSON payload received. The body is not JSON.") from None
    if not isinstance(value, dict):
        raise invalid("Invalid JSON payload received. The body is not a JSON object.")
    return value


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _json(value: Mapping[str, Any], status: int = 200) -> Response:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return Response(body, status, media_type="application/json; charset=UTF-8")
