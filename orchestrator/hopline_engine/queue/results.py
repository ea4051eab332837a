"""Results of HTTP steps, checked against the type that the step declares."""

from collections.abc import Mapping
from typing import Any

import msgspec
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match

from hopline_engine.core.strict_json import StrictJsonError, parse


class InvalidResultError(ValueError):
    """A result is not JSON, cannot be stored, or is not of the declared type."""


class ResultType:
    """The declared type of a step's result, as a JSON schema ready to check."""

    __slots__ = ("_max_bytes", "_schema", "_validator")

    def __init__(self, schema: Mapping[str, Any], max_bytes: int) -> None:
        self._schema = schema
        self._max_bytes = max_bytes
        self._validator: Draft202012Validator | None = None

    def read(self, body: bytes, *, is_text: bool = False) -> bytes:
        """Return the result that a target's answer carries, as JSON bytes that can be stored.

        A step that declares no result (``Request[None]``) takes any body as ``null``, and a step that declares a
        string takes a plain text as it is.

        Raises:
            InvalidResultError: the message says what is wrong and where.
        """
        if self._schema.get("type") == "null":
            return b"null"
        if len(body) > self._max_bytes:
            raise InvalidResultError(
                f"the result has {len(body)} bytes, more than the {self._max_bytes} of result_max_bytes"
            )
        try:
            value = parse(body or b"null")
        except StrictJsonError as error:
            if is_text and self._schema.get("type") == "string":
                return self.read(_quoted(body))
            raise InvalidResultError(f"the answer is not JSON that can be stored: {error}") from None
        self.check(value)
        return body or b"null"

    def check(self, value: Any) -> None:
        """Check a decoded value.

        Raises:
            InvalidResultError: it does not fit; the message names the place.
        """
        if not self._schema:
            return
        if self._validator is None:
            self._validator = Draft202012Validator(self._schema)
        error = best_match(self._validator.iter_errors(value))
        if error is not None:
            raise InvalidResultError(describe(error))


def describe(error: ValidationError) -> str:
    """Return one line about what does not fit, and where."""
    where = "".join(f"[{part!r}]" for part in error.absolute_path)
    message = error.message if len(error.message) <= 300 else f"{error.message[:300]}…"
    return f"{where}: {message}" if where else message


def _quoted(body: bytes) -> bytes:
    try:
        return msgspec.json.encode(body.decode())
    except UnicodeDecodeError:
        raise InvalidResultError("the answer is not UTF-8 text") from None
