"""The one reader of JSON that comes from outside: request bodies, answers of targets, callbacks.

What passes can be stored as it is, in SQLite and in Postgres ``jsonb``, and read back by any JSON parser of Python:
RFC 8259 in UTF-8, without NaN and infinities, NUL characters, lone surrogates and repeated keys, nested at most
``MAX_DEPTH`` deep, with numbers whose parts have at most ``MAX_DIGITS`` digits.

msgspec refuses most of it by itself. The rest is found by searching the bytes for what could be wrong; only a
document with such a place is looked at exactly, so an ordinary one costs one decoding, and one encoding when it has
objects.
"""

import json
import re
from itertools import accumulate
from typing import Any

import msgspec

MAX_DEPTH = 64
MAX_DIGITS = 4300
"""As many as Python's ``int`` reads by default; Postgres stores more. The minus sign of an integer counts as one."""

_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_BETWEEN_SQUARES = (ord("[") + ord("]")) // 2
_DIGITS = re.compile(rb"[0-9]*")
# Postgres keeps the digits of 1e-99999, of which numeric has at most 16,383 after the point.
_SMALL_EXPONENT = re.compile(rb"[0-9][eE]-0*+[0-9]{5}")

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class StrictJsonError(ValueError):
    """The bytes are not JSON that can be stored; the message says what is wrong with them."""


def parse(body: bytes) -> Any:
    """Return the value of *body*.

    >>> parse(b'{"shop": "Kiel"}')
    {'shop': 'Kiel'}

    Raises:
        StrictJsonError: *body* is not JSON, or is JSON that cannot be stored.
    """
    try:
        value = _decode(body)
    except UnicodeDecodeError:
        raise StrictJsonError("it is not UTF-8") from None
    except RecursionError:
        raise StrictJsonError(f"it is nested deeper than {MAX_DEPTH} levels") from None
    except msgspec.DecodeError as error:
        message = str(error)
        raise StrictJsonError(message if message[:2].isupper() else message[:1].lower() + message[1:]) from None
    if b"u0000" in body and b"\\u0000" in body.replace(b"\\\\", b""):
        raise StrictJsonError("it contains a NUL character (\\u0000)")
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _check_depth(body)
    if len(body) > MAX_DIGITS and _has_long_number(body) and _has_long_number(_without_strings(body)):
        raise StrictJsonError(f"it contains a number of more than {MAX_DIGITS} digits")
    if b"e-" in body or b"E-" in body:
        _check_exponents(body)
    if body.count(b":") > 1:
        _check_keys(body, value)
    return value


def check(body: bytes) -> None:
    """Refuse what ``parse`` refuses.

    Raises:
        StrictJsonError: *body* is not JSON, or is JSON that cannot be stored.
    """
    parse(body)


def _without_strings(body: bytes) -> bytes:
    """Return the valid JSON *body* with every string emptied.

    Backslashes occur in strings only, and the first one of a series of them starts an escape. So after removing
    the pairs, then the escaped quotes, every quote left begins or ends a string.
    """
    return b'"'.join(body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])


def _check_depth(body: bytes) -> None:
    brackets = _without_strings(body).translate(_AS_SQUARE, _NOT_BRACKETS)
    steps = map(_BETWEEN_SQUARES.__sub__, brackets)  # 1 for an opening bracket, -1 for a closing one
    if max(accumulate(steps), default=0) > MAX_DEPTH:
        raise StrictJsonError(f"it is nested deeper than {MAX_DEPTH} levels")


def _check_exponents(body: bytes) -> None:
    if _SMALL_EXPONENT.search(body) and _SMALL_EXPONENT.search(_without_strings(body)):
        raise StrictJsonError("it contains a number with an exponent below -9999")


def _has_long_number(body: bytes) -> bool:
    """Whether more than ``MAX_DIGITS`` digits follow each other; linear in the length whatever the bytes.

    So many digits cover one of the places that are ``MAX_DIGITS + 1`` apart, so only those are looked at.
    """
    step = MAX_DIGITS + 1
    for place in range(step - 1, len(body), step):
        if not 48 <= body[place] <= 57:
            continue
        before = _DIGITS.match(body[place - MAX_DIGITS : place][::-1])
        after = _DIGITS.match(body, place)
        if before and after and before.end() + after.end() - place > MAX_DIGITS:
            return True
    return False


def _check_keys(body: bytes, value: Any) -> None:
    """Refuse a key that appears twice in one object, of which *value* has only the last.

    Encoding *value* again gives one colon for every pair that survived and for every colon in a string. As many
    as in *body* means that none is missing, unless *body* has colons written as ``\\u003a``.
    """
    if b"u003" in body or body.count(b":") != _encode(value).count(b":"):
        json.loads(body, object_pairs_hook=_distinct)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys: set[str] = set()
    for key, _ in pairs:
        if key in keys:
            raise StrictJsonError(f"the key {json.dumps(key[:100])} appears twice in one object")
        keys.add(key)
    return dict(pairs)
