"""The request of an HTTP step with expressions where values of the run go; stored in the definition."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from hopline.definition import Expr
from hopline.expressions import Encoder, Refuse
from hopline.request import Request

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", re.ASCII)
_LINE_BREAK = re.compile(r"[\r\n]")
_SCHEMES = ("http://", "https://")
# The engine's own: what a step sends there would be overwritten, or would break the message on the wire.
_RESERVED_HEADERS = frozenset({"host", "content-length", "transfer-encoding", "connection"})


def request_template(request: Request[Any], encoder: Callable[[str], Encoder], refuse: Refuse) -> dict[str, Any]:
    """Return *request* as it stands in a definition; *encoder* makes the encoder for a part, given its name."""
    if request.method not in METHODS:
        refuse(f"the method of the request is {request.method!r}", f"use one of {', '.join(METHODS)}")
    template: dict[str, Any] = {
        "method": request.method,
        "url": _url(encoder("the URL").encode(request.url), refuse),
        "params": _texts("params", request.params, encoder, refuse),
        "headers": _headers(_texts("headers", request.headers, encoder, refuse), refuse),
        "has_json": request.has_json,
    }
    if request.has_json:
        template["json"] = encoder("the JSON body").encode(request.json)
    return template


def _url(url: Expr, refuse: Refuse) -> Expr:
    start = url["$text"][0] if isinstance(url, dict) and "$text" in url else url
    if isinstance(start, str) and not start.lower().startswith(_SCHEMES):
        refuse(f"the URL of the request is {start!r}", "begin with http:// or https:// and the host")
    if not isinstance(start, str | dict):
        refuse(f"the URL of the request is {start!r}", "give a text")
    return url


def _texts(part: str, values: object, encoder: Callable[[str], Encoder], refuse: Refuse) -> dict[str, Expr]:
    if not isinstance(values, Mapping):
        refuse(f"{part} is {type(values).__name__}, not a dict", f'write {part}={{"name": value}}')
    texts: dict[str, Expr] = {}
    for name, value in encoder(f"{part} of the request").encode(dict(values)).items():
        # A list or null has more than one common spelling in a query; which is meant is for the user to say.
        if (
            value is None
            or isinstance(value, list)
            or (isinstance(value, dict) and len(value) != 1 and "$ref" not in value)
        ):
            refuse(f"{name!r} in {part} is {value!r}", "give a text, a number, a boolean or a result")
        texts[name] = value
    return texts


def _headers(headers: dict[str, Expr], refuse: Refuse) -> dict[str, Expr]:
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _RESERVED_HEADERS:
            refuse(f"{name!r} cannot be set as a header", "choose another header name")
        parts = value["$text"] if isinstance(value, dict) and "$text" in value else [value]
        if any(isinstance(part, str) and _LINE_BREAK.search(part) for part in parts):
            refuse(f"the header {name!r} holds a line break", "headers are one line each")
    return headers
