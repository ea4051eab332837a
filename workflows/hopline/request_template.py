"""The request of an HTTP step with expressions where values of the run go; stored in the definition."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from hopline.definition import Expr
from hopline.expressions import Encoder, Refuse, is_open
from hopline.markers import readable
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
        "url": _url(encoder("the URL").encode(request.url), "the URL", refuse),
        "params": _named("params", request.params, encoder, refuse),
        "headers": _named("headers", request.headers, encoder, refuse),
        "has_json": request.has_json,
    }
    for name, value in template["params"].items():
        if not all(map(_is_plain, value if isinstance(value, list) else [value])):
            refuse(f"{name!r} in params is {value!r}", "give a text, number, boolean, result or list of them, or None")
    for name, value in template["headers"].items():
        _check_header(name, value, refuse)
    if request.has_json:
        template["json"] = encoder("the JSON body").encode(request.json)
    if request.cancel is not None:
        what = "the cancel URL"
        template["cancel"] = _url(encoder(what).encode(request.cancel), what, refuse)
    return template


def _url(url: Expr, what: str, refuse: Refuse) -> Expr:
    if not _is_text(url):
        refuse(f"{what} of the request is {url!r}", "give a text")
    start = _parts(url)[0]
    if isinstance(start, str) and not start.lower().startswith(_SCHEMES):
        refuse(f"{what} of the request is {start!r}", "begin with http:// or https:// and the host")
    return url


def _named(part: str, values: object, encoder: Callable[[str], Encoder], refuse: Refuse) -> dict[str, Expr]:
    if not isinstance(values, Mapping):
        refuse(f"{part} is {type(values).__name__}, not a dict", f'write {part}={{"name": value}}')
    for name in values:
        if type(encoder(f"a name in {part}").encode(name)) is not str:
            refuse(f"{part} has the name {readable(str(name))!r}", "names are fixed texts")
    return {name: encoder(f"{name!r} in {part}").encode(value) for name, value in values.items()}


def _check_header(name: str, value: Expr, refuse: Refuse) -> None:
    if not _HEADER_NAME.fullmatch(name) or name.lower() in _RESERVED_HEADERS:
        refuse(f"{name!r} cannot be set as a header", "choose another header name")
    if not _is_text(value):
        refuse(f"{name!r} in headers is {value!r}", "give a text or a result")
    if any(isinstance(part, str) and _LINE_BREAK.search(part) for part in _parts(value)):
        refuse(f"the header {name!r} holds a line break", "headers are one line each")


def _parts(text: Expr) -> list[Expr]:
    return text["$text"] if isinstance(text, dict) and "$text" in text else [text]


def _is_text(value: Expr) -> bool:
    return isinstance(value, str) or (isinstance(value, dict) and is_open(value))


def _is_plain(value: Expr) -> bool:
    return _is_text(value) or value is None or isinstance(value, int | float)
