"""Which tasks may be created, and the form in which they are kept.

As in ``queues``, what people ask for comes as *fields* in the shape of a v2 ``Task``.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from hopline_engine.core.cloud.errors import invalid
from hopline_engine.core.cloud.headers import check_headers, is_ours
from hopline_engine.core.cloud.model import (
    DAY,
    AppEngineHttpRequest,
    AppEngineRouting,
    HttpMethod,
    HttpRequest,
    OAuthToken,
    OidcToken,
    Payload,
    PullMessage,
    Queue,
    Task,
    microseconds,
)
from hopline_engine.core.cloud.names import TaskName
from hopline_engine.core.cloud.queues import Fields, retry_config_from
from hopline_engine.core.cloud.size import LARGEST_TASK, stored_size

USER_AGENT: Final = "Google-Cloud-Tasks"
APP_ENGINE_USER_AGENT: Final = "AppEngine-Google; (+http://code.google.com/appengine)"
FARTHEST: Final = 30 * DAY
LONGEST_URL: Final = 2083
LONGEST_TAG: Final = 500

_HTTP_DEADLINES: Final = (15.0, 1800.0)
_APP_ENGINE_DEADLINES: Final = (15.0, 86_415.0)
HTTP_DEADLINE: Final = 600.0

_WITH_BODY: Final = frozenset({HttpMethod.POST, HttpMethod.PUT, HttpMethod.PATCH})
_APP_ENGINE_WITH_BODY: Final = frozenset({HttpMethod.POST, HttpMethod.PUT})
_NO_APP_ENGINE: Final = frozenset({HttpMethod.PATCH, HttpMethod.OPTIONS})


def task_from(name: TaskName, queue: Queue, fields: Fields, now: float) -> Task:
    """Return the task that *fields* ask for, as it is kept.

    Raises:
        CloudTasksError: it may not be like this, or not in this queue.
    """
    payload = _payload(name, queue, fields)
    task = Task(
        name=str(name),
        payload=payload,
        schedule_time=_schedule_time(fields.get("schedule_time"), now),
        create_time=float(int(now)),
        dispatch_deadline=_deadline(payload, fields.get("dispatch_deadline")),
        retry_config=retry_config_from(fields["retry_config"]) if "retry_config" in fields else None,
    )
    if stored_size(task) > LARGEST_TASK:
        raise invalid("Task size too large")
    return task


def _payload(name: TaskName, queue: Queue, fields: Fields) -> Payload:
    given = [part for part in ("http_request", "app_engine_http_request", "pull_message") if part in fields]
    if len(given) != 1:
        raise invalid("Task must have exactly one of httpRequest, appEngineHttpRequest and pullMessage.")
    is_pull = given == ["pull_message"]
    if is_pull and not queue.is_pull:
        raise invalid("Task.pullMessage is only for pull queues.")
    if queue.is_pull and not is_pull:
        raise invalid("Tasks of a pull queue must have a pullMessage.")
    match given[0]:
        case "http_request":
            return http_request_from(fields["http_request"])
        case "app_engine_http_request":
            return _app_engine(name, queue, fields["app_engine_http_request"])
        case _:
            return _pull_message(fields["pull_message"])


def http_request_from(fields: Fields) -> HttpRequest:
    """Return the request that *fields* ask for, with the headers that are kept with it."""
    url = fields.get("url", "")
    if not url:
        raise invalid("HttpRequest.url is required.")
    if not url.startswith(("http://", "https://")):
        raise invalid("HttpTarget.url must start with 'http://' or 'https://'.")
    if len(url) > LONGEST_URL:
        raise invalid(f"HttpRequest.url must be at most {LONGEST_URL} characters.")
    method = HttpMethod(fields.get("http_method", HttpMethod.POST))
    body = fields.get("body", b"")
    if body and method not in _WITH_BODY:
        raise invalid(f"HttpRequest.body is not allowed with method {method}.")
    oauth, oidc = fields.get("oauth_token"), fields.get("oidc_token")
    if oauth is not None and oidc is not None:
        raise invalid("HttpRequest can have only one of oauthToken and oidcToken.")
    headers = _kept_headers("HttpRequest", fields.get("headers", {}))
    return HttpRequest(
        url=url,
        http_method=method,
        headers={**_without(headers, "user-agent"), "User-Agent": USER_AGENT},
        body=body,
        oauth_token=OAuthToken(**oauth) if oauth is not None else None,
        oidc_token=OidcToken(**oidc) if oidc is not None else None,
    )


def _app_engine(name: TaskName, queue: Queue, fields: Fields) -> AppEngineHttpRequest:
    method = HttpMethod(fields.get("http_method", HttpMethod.POST))
    uri = fields.get("relative_uri", "") or "/"
    body = fields.get("body", b"")
    if method in _NO_APP_ENGINE:
        raise invalid(f"AppEngineHttpRequest.httpMethod {method} is not allowed.")
    if not uri.startswith("/"):
        raise invalid("AppEngineHttpRequest.relativeUri must begin with '/'.")
    if " " in uri:
        raise invalid("AppEngineHttpRequest.relativeUri must not contain white space.")
    if len(uri) > LONGEST_URL:
        raise invalid(f"AppEngineHttpRequest.relativeUri must be at most {LONGEST_URL} characters.")
    if body and method not in _APP_ENGINE_WITH_BODY:
        raise invalid(f"AppEngineHttpRequest.body is not allowed with method {method}.")
    routing = queue.config.app_engine_routing_override or AppEngineRouting(**fields.get("app_engine_routing", {}))
    return AppEngineHttpRequest(
        http_method=method,
        app_engine_routing=_with_host(routing, name.queue.project),
        relative_uri=uri,
        headers=_app_engine_headers(_kept_headers("AppEngineHttpRequest", fields.get("headers", {})), body),
        body=body,
    )


def _app_engine_headers(headers: dict[str, str], body: bytes) -> dict[str, str]:
    own = next((value for key, value in headers.items() if key.lower() == "user-agent"), None)
    agent = f"{own} {APP_ENGINE_USER_AGENT}" if own else APP_ENGINE_USER_AGENT
    kept = {**_without(headers, "user-agent"), "User-Agent": agent}
    if body:
        if not any(key.lower() == "content-type" for key in kept):
            kept["Content-Type"] = "application/octet-stream"
        kept["Content-Length"] = str(len(body))
    return kept


def _with_host(routing: AppEngineRouting, project: str) -> AppEngineRouting:
    parts = [part for part in (routing.instance, routing.version, routing.service) if part]
    return AppEngineRouting(
        service=routing.service,
        version=routing.version,
        instance=routing.instance,
        host=".".join([*parts, project, "appspot", "com"]),
    )


def _pull_message(fields: Fields) -> PullMessage:
    tag = fields.get("tag", "")
    if len(tag) >= LONGEST_TAG:
        raise invalid(f"PullMessage.tag must be less than {LONGEST_TAG} characters.")
    return PullMessage(payload=fields.get("payload", b""), tag=tag)


def _kept_headers(message: str, headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of people's that are kept; those that are the service's to say are passed over."""
    check_headers(f"{message}.headers", headers.items())
    return {key: value for key, value in headers.items() if not is_ours(key)}


def _without(headers: Mapping[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key.lower() != name}


def _schedule_time(asked: float | None, now: float) -> float:
    if asked is None or asked <= now:
        return microseconds(now)
    if asked > now + FARTHEST:
        raise invalid(
            f"The Task.scheduleTime, {_in_pacific_time(asked)}, is too far in the future. "
            "Schedule time must be no more than 720h in the future."
        )
    return microseconds(asked)


def _in_pacific_time(time: float) -> str:
    zone: tzinfo
    try:
        zone = ZoneInfo("America/Los_Angeles")
    except ZoneInfoNotFoundError:
        zone = UTC
    try:
        return datetime.fromtimestamp(time, zone).isoformat()
    except (OverflowError, ValueError):
        return f"{time:.0f}"


def _deadline(payload: Payload, asked: float | None) -> float | None:
    match payload:
        case HttpRequest():
            least, most = _HTTP_DEADLINES
            if asked is not None and not least <= asked <= most:
                raise invalid("Task.dispatchDeadline must be between [15s, 30m].")
            return HTTP_DEADLINE if asked is None else round(asked, 3)
        case AppEngineHttpRequest():
            least, most = _APP_ENGINE_DEADLINES
            if asked is not None and not least <= asked <= most:
                raise invalid("Task.dispatchDeadline must be between [15s, 24h15s].")
            return None if asked is None else round(asked, 3)
        case PullMessage():
            return None


def fields_of_payload(payload: Payload) -> tuple[str, dict[str, Any]]:
    """Return which of v2's fields holds a payload, and what is in it."""
    match payload:
        case HttpRequest():
            fields: dict[str, Any] = {
                "url": payload.url,
                "http_method": payload.http_method.value,
                "headers": payload.headers,
                "body": payload.body,
            }
            if payload.oauth_token is not None:
                fields["oauth_token"] = _fields_of_token(payload.oauth_token)
            if payload.oidc_token is not None:
                fields["oidc_token"] = _fields_of_token(payload.oidc_token)
            return "http_request", fields
        case AppEngineHttpRequest():
            routing = payload.app_engine_routing or AppEngineRouting()
            return "app_engine_http_request", {
                "http_method": payload.http_method.value,
                "app_engine_routing": {
                    "service": routing.service,
                    "version": routing.version,
                    "instance": routing.instance,
                    "host": routing.host,
                },
                "relative_uri": payload.relative_uri,
                "headers": payload.headers,
                "body": payload.body,
            }
        case PullMessage():
            return "pull_message", {"payload": payload.payload, "tag": payload.tag}


def _fields_of_token(token: OAuthToken | OidcToken) -> dict[str, str]:
    if isinstance(token, OidcToken):
        return {"service_account_email": token.service_account_email, "audience": token.audience}
    return {"service_account_email": token.service_account_email, "scope": token.scope}
