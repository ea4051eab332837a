"""Results of HTTP steps, checked against the type that the step declares."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import date, datetime, time
from functools import lru_cache
from typing import Any, Final, Literal
from uuid import UUID

import msgspec
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.protocols import Validator
from jsonschema.validators import extend
from pydantic_core import SchemaError, SchemaValidator, core_schema

from hopline_engine.core.strict_json import StrictJsonError, parse

_FORMATS = FormatChecker(formats=())


@_FORMATS.checks("date", raises=ValueError)
def _is_date(value: object) -> bool:
    return not isinstance(value, str) or bool(date.fromisoformat(value))


@_FORMATS.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    return not isinstance(value, str) or bool(datetime.fromisoformat(value))


@_FORMATS.checks("time", raises=ValueError)
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or time.fromisoformat(value) is not None


@_FORMATS.checks("uuid", raises=ValueError)
def _is_uuid(value: object) -> bool:
    return not isinstance(value, str) or bool(UUID(value))


@lru_cache(maxsize=1024)
def _matcher(pattern: str) -> Callable[[str], bool]:
    """Return what tells whether a text has a pattern, which is read as pydantic reads it where the type is declared.

    Those expressions take no longer than the text is long, and not all of them are ones of Python. What cannot be read
    here refuses nothing.
    """
    engines: tuple[Literal["rust-regex", "python-re"], ...] = ("rust-regex", "python-re")
    for engine in engines:
        with suppress(SchemaError):
            return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine=engine)).isinstance_python
    return lambda _: True


def _pattern(_: Validator, pattern: str, instance: object, __: Any) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _matcher(pattern)(instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _pattern_properties(
    checker: Any, patterns: Mapping[str, Any], instance: object, _: Any
) -> Iterator[ValidationError]:
    if not isinstance(instance, dict):
        return
    for pattern, schema in patterns.items():
        matches = _matcher(pattern)
        for key, value in instance.items():
            if matches(key):
                yield from checker.descend(value, schema, path=key, schema_path=pattern)


def _multiple_of(checker: Any, of: float, instance: object, schema: Any) -> Iterator[ValidationError]:
    try:
        yield from Draft202012Validator.VALIDATORS["multipleOf"](checker, of, instance, schema)
    except OverflowError:  # a whole number of hundreds of digits
        yield ValidationError(f"{instance!r} is not a multiple of {of!r}")


_OURS: Final = {"pattern": _pattern, "patternProperties": _pattern_properties, "multipleOf": _multiple_of}
_Checker: type[Validator] = extend(Draft202012Validator, _OURS)  # type: ignore[no-untyped-call]


class InvalidResultError(ValueError):
    """A result is not JSON, cannot be stored, or is not of the declared type."""


class ResultType:
    """The declared type of a step's result, as a JSON schema ready to check."""

    __slots__ = ("_max_bytes", "_schema", "_validator")

    def __init__(self, schema: Mapping[str, Any], max_bytes: int) -> None:
        self._schema = schema
        self._max_bytes = max_bytes
        self._validator: Validator | None = None

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
            self._validator = validator(self._schema)
        error = best_match(self._validator.iter_errors(value))
        if error is not None:
            raise InvalidResultError(describe(error))


def validator(schema: Mapping[str, Any]) -> Validator:
    """Return a checker of values of users: formats count, since a step's ``date`` is a string in JSON."""
    return _Checker(schema, format_checker=_FORMATS)


def describe(error: ValidationError, below: int = 0) -> str:
    """Return one line about what does not fit, and where, counted from a depth in the value."""
    where = "".join(f"[{part!r}]" for part in list(error.absolute_path)[below:])
    message = error.message if len(error.message) <= 300 else f"{error.message[:300]}…"
    return f"{where}: {message}" if where else message


def _quoted(body: bytes) -> bytes:
    try:
        return msgspec.json.encode(body.decode())
    except UnicodeDecodeError:
        raise InvalidResultError("the answer is not UTF-8 text") from None
