"""The HTTP request that an HTTP step stands for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Generic[R]):
    """A request whose answer is JSON of type ``R``; made by ``http.get`` and its like.

    ``json`` is sent as the body only when ``has_json``, so that ``null`` can be sent too.
    """

    method: str
    url: str
    params: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    has_json: bool = False
    cancel: str | None = None
    """Where the engine posts when the run is cancelled while this request, or the callback after it, is waited for."""


_NO_BODY: Any = object()


class Verbs:
    """``http.get`` and its like: each returns a request and sends nothing.

    Values of ``params`` are text, numbers, booleans, lists of these (the name is repeated) or None (left out); ``json``
    is anything that JSON can say, models included. ``cancel`` is a URL that the engine posts to, without a body, when
    the run is cancelled while the request, or the callback after a 202, is waited for.
    """

    def get(
        self,
        url: str,
        *,
        params: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        cancel: str | None = None,
    ) -> Request[Any]:
        """Return a GET request."""
        return _request("GET", url, params, headers, _NO_BODY, cancel)

    def post(
        self,
        url: str,
        *,
        json: object = _NO_BODY,
        params: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        cancel: str | None = None,
    ) -> Request[Any]:
        """Return a POST request; without *json* it has no body."""
        return _request("POST", url, params, headers, json, cancel)

    def put(
        self,
        url: str,
        *,
        json: object = _NO_BODY,
        params: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        cancel: str | None = None,
    ) -> Request[Any]:
        """Return a PUT request; without *json* it has no body."""
        return _request("PUT", url, params, headers, json, cancel)

    def patch(
        self,
        url: str,
        *,
        json: object = _NO_BODY,
        params: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        cancel: str | None = None,
    ) -> Request[Any]:
        """Return a PATCH request; without *json* it has no body."""
        return _request("PATCH", url, params, headers, json, cancel)

    def delete(
        self,
        url: str,
        *,
        params: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        cancel: str | None = None,
    ) -> Request[Any]:
        """Return a DELETE request."""
        return _request("DELETE", url, params, headers, _NO_BODY, cancel)


def _request(
    method: str,
    url: str,
    params: Mapping[str, object] | None,
    headers: Mapping[str, str] | None,
    json: object,
    cancel: str | None,
) -> Request[Any]:
    has_json = json is not _NO_BODY
    return Request(
        method=method,
        url=url,
        params={} if params is None else params,
        headers={} if headers is None else headers,
        json=json if has_json else None,
        has_json=has_json,
        cancel=cancel,
    )
