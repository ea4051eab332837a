"""How large a task is: the size of its v2 message on the wire, which is what the original limits."""

from typing import Final

from hopline_engine.core.cloud.model import AppEngineHttpRequest, HttpRequest, OAuthToken, OidcToken, PullMessage, Task

LARGEST_TASK: Final = 1_048_569
"""Bytes: 1 MiB less seven."""


def stored_size(task: Task) -> int:
    """Return the size of a task as it is kept."""
    size = _text(task.name) + _time(task.schedule_time) + _time(task.create_time)
    if task.dispatch_deadline is not None:
        size += _time(task.dispatch_deadline)
    match task.payload:
        case HttpRequest() as request:
            return size + _nested(_http(request))
        case AppEngineHttpRequest() as request:
            return size + _nested(_app_engine(request))
        case PullMessage() as message:
            return size + _nested(_field(len(message.payload)) + _text(message.tag))


def _http(request: HttpRequest) -> int:
    size = _text(request.url) + 2 + _headers(request.headers) + _field(len(request.body))
    for token in (request.oauth_token, request.oidc_token):
        if token is not None:
            size += _nested(_token(token))
    return size


def _app_engine(request: AppEngineHttpRequest) -> int:
    host = request.app_engine_routing.host if request.app_engine_routing else ""
    body = _field(len(request.body))
    return 2 + _nested(_text(host)) + _text(request.relative_uri) + _headers(request.headers) + body


def _token(token: OAuthToken | OidcToken) -> int:
    second = token.audience if isinstance(token, OidcToken) else token.scope
    return _text(token.service_account_email) + _text(second)


def _headers(headers: dict[str, str]) -> int:
    # Entries of maps carry both their fields even when these are empty.
    return sum(_nested(_nested(len(key.encode())) + _nested(len(value.encode()))) for key, value in headers.items())


def _text(text: str) -> int:
    return _field(len(text.encode()))


def _field(length: int) -> int:
    return _nested(length) if length else 0


def _nested(length: int) -> int:
    """Return the size of a field of *length* bytes: a byte for its number, its length, and itself."""
    return 1 + _varint(length) + length


def _time(seconds: float) -> int:
    """Return the size of a timestamp or duration."""
    whole = int(seconds)
    nanos = round((seconds - whole) * 1e6) * 1000
    return _nested((1 + _varint(whole) if whole else 0) + (1 + _varint(nanos) if nanos else 0))


def _varint(value: int) -> int:
    return max(1, (value.bit_length() + 6) // 7)
