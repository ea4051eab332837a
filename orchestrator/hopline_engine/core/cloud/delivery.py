"""What a target receives for one attempt of a task: method, URL, headers and body, after all overrides."""

from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit, urlunsplit

from hopline_engine.core.cloud.headers import is_ours
from hopline_engine.core.cloud.model import (
    AppEngineHttpRequest,
    HttpMethod,
    HttpRequest,
    HttpTarget,
    OAuthToken,
    OidcToken,
    UriOverride,
)
from hopline_engine.core.cloud.names import TaskName

_BODILESS: Final = frozenset({HttpMethod.GET, HttpMethod.HEAD, HttpMethod.DELETE, HttpMethod.OPTIONS})


class Progress(NamedTuple):
    """How far a task has come when an attempt is sent."""

    attempt: int
    """Number of this attempt, from 1."""
    executed: int
    """How many earlier attempts count as executed: answered, for HTTP targets with anything but 5xx."""
    previous_response: int | None
    """HTTP status of the last answer; 504 or 0 after a deadline; ``None`` before the second attempt."""
    retry_reason: str
    schedule_time: float


class Delivery(NamedTuple):
    """One request to be sent."""

    method: str
    url: str
    headers: list[tuple[str, str]]
    body: bytes
    token: OidcToken | OAuthToken | None
    """What has to be put into the header ``Authorization``."""


def http_delivery(name: TaskName, request: HttpRequest, target: HttpTarget | None, progress: Progress) -> Delivery:
    """Return what an HTTP target receives."""
    target = target or HttpTarget()
    method = target.http_method or request.http_method
    headers = overridden(request.headers, target.header_overrides)
    return Delivery(
        method=method.value,
        url=overridden_url(request.url, target.uri_override) if target.uri_override else request.url,
        headers=[*_own(headers, "x-cloudtasks-"), *_told("X-CloudTasks-", name, progress)],
        body=b"" if method in _BODILESS else request.body,
        token=target.oidc_token or target.oauth_token or request.oidc_token or request.oauth_token,
    )


def app_engine_delivery(name: TaskName, request: AppEngineHttpRequest, base: str, progress: Progress) -> Delivery:
    """Return what an App Engine app at the URL *base* receives."""
    return Delivery(
        method=request.http_method.value,
        url=base.rstrip("/") + request.relative_uri,
        headers=[*_own(request.headers, "x-appengine-"), *_told("X-AppEngine-", name, progress)],
        body=request.body,
        token=None,
    )


def overridden(headers: dict[str, str], overrides: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Return *headers* with *overrides* in place of those of the same name in any case.

    What the service itself says, its user agent among it, cannot be overridden.

    >>> overridden({"a": "1", "b": "2"}, (("A", "3"),))
    {'b': '2', 'A': '3'}
    """
    if not overrides:
        return headers
    chosen = {key: value for key, value in overrides if not is_ours(key) and key.lower() != "user-agent"}
    replaced = {key.lower() for key in chosen}
    return {key: value for key, value in headers.items() if key.lower() not in replaced} | chosen


def overridden_url(url: str, override: UriOverride) -> str:
    """Return *url* with the parts that the queue decides.

    >>> overridden_url("http://a:8080/x?q=1", UriOverride(host="b", port=0, path="/y"))
    'http://b/y?q=1'

    Raises:
        ValueError: *url* is no URL.
    """
    parts = urlsplit(url)
    if not override.always:
        path = parts.path if parts.path not in ("", "/") else override.path or parts.path
        return urlunsplit(parts._replace(path=_rooted(path), query=parts.query or override.query or ""))
    return urlunsplit(
        SplitResult(
            scheme=override.scheme.lower() if override.scheme else parts.scheme,
            netloc=_netloc(parts, override),
            path=parts.path if override.path is None else _rooted(override.path),
            query=parts.query if override.query is None else override.query.removeprefix("?"),
            fragment=parts.fragment,
        )
    )


def _netloc(parts: SplitResult, override: UriOverride) -> str:
    if override.host is None and override.port is None:
        return parts.netloc
    host = override.host or parts.hostname or ""
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    port = parts.port if override.port is None else override.port
    return f"{host}:{port}" if port else host


def _rooted(path: str) -> str:
    return path if not path or path.startswith("/") else f"/{path}"


def _own(headers: dict[str, str], reserved: str) -> list[tuple[str, str]]:
    return [(key, value) for key, value in headers.items() if not key.lower().startswith(reserved)]


def _told(prefix: str, name: TaskName, progress: Progress) -> list[tuple[str, str]]:
    """Return what the service says of the task; the casing is the documented one."""
    told = [
        ("QueueName", name.queue.queue),
        ("TaskName", name.task),
        ("TaskRetryCount", str(progress.attempt - 1)),
        ("TaskExecutionCount", str(progress.executed)),
        ("TaskETA", f"{progress.schedule_time:.6f}"),
    ]
    if progress.attempt > 1 and progress.previous_response is not None:
        told.append(("TaskPreviousResponse", str(progress.previous_response)))
        told.append(("TaskRetryReason", progress.retry_reason))
    return [(prefix + key, value) for key, value in told]
