"""JSON of protobuf messages, read strictly and written as the original writes it.

Read: names in camel or snake case, enums by name or number, 64-bit integers as strings or numbers, bytes in either
base64 alphabet, ``null`` for what was not said. What comes out are *fields*: names in snake case, enums by name,
bytes as bytes, times and durations as seconds; what was not said is not there. Anything else is an error that names
the place, in the original's words.
"""

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, assert_never

from hopline_engine.core.cloud.errors import CloudTasksError, invalid
from hopline_engine.core.cloud.model import microseconds
from hopline_engine.queue_api.shapes import EnumOf, Kind, Many, Of, Optional, Scalar, Shapes

Fields = Mapping[str, Any]

_DURATION: Final = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?s")
_TIMESTAMP: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_LONGEST_DURATION: Final = 315_576_000_000
_INT32: Final = range(-(2**31), 2**31)
_INT64: Final = range(-(2**63), 2**63)
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}")


def snake(name: str) -> str:
    """Return a field's name in snake case, however it was written.

    >>> snake("maxDispatchesPerSecond")
    'max_dispatches_per_second'
    """
    return re.sub(r"([A-Z])", r"_\1", name).lower()


def camel(name: str) -> str:
    """Return a field's name as JSON has it.

    >>> camel("max_dispatches_per_second")
    'maxDispatchesPerSecond'
    """
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def read_message(shapes: Shapes, message: str, value: Any, place: str = "") -> dict[str, Any]:
    """Return the fields of a message.

    Raises:
        CloudTasksError: it is not of this shape.
    """
    if not isinstance(value, dict):
        raise _wrong(place or message, f"type.googleapis.com/google.cloud.tasks.{message}", value)
    shape = shapes[message]
    fields: dict[str, Any] = {}
    for name, given in value.items():
        field = name if name in shape else snake(name)
        if field not in shape or name not in (field, camel(field)):
            at = f" at '{place}'" if place else ""
            raise invalid(f'Invalid JSON payload received. Unknown name "{_shown(name)}"{at}: Cannot find field.')
        if given is None:
            continue
        if field in fields:
            raise invalid(f"Invalid JSON payload received. Field '{field}' is given twice.")
        read = _read(shapes, shape[field], given, f"{place}.{field}" if place else field)
        if read is not None:
            fields[field] = read
    return fields


def _read(shapes: Shapes, kind: Kind, value: Any, place: str) -> Any:
    match kind:
        case Of(message):
            return read_message(shapes, message, value, place)
        case Many(of):
            if not isinstance(value, list):
                raise _wrong(place, "a list", value)
            return [_read(shapes, of, item, f"{place}[{at}]") for at, item in enumerate(value)]
        case EnumOf():
            return _read_enum(kind, value, place)
        case Optional(of):
            return _read(shapes, of, value, place)
        case Scalar():
            return _read_scalar(kind, value, place)
        case _:
            assert_never(kind)


def _read_enum(kind: EnumOf, value: Any, place: str) -> str | None:
    """Return the name of a value; ``None`` for the first, which says nothing."""
    if isinstance(value, str) and value in kind.names:
        return value if value != kind.names[0] else None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(kind.names):
        return kind.names[value] if value else None
    raise _wrong(place, f"type.googleapis.com/google.cloud.tasks.{kind.name}", value)


def _read_scalar(kind: Scalar, value: Any, place: str) -> Any:  # noqa: C901 - one line for each kind
    match kind:
        case Scalar.STRING:
            return _of(str, kind, value, place)
        case Scalar.BOOL:
            return _of(bool, kind, value, place)
        case Scalar.INT32:
            return _read_int(kind, value, place, _INT32)
        case Scalar.INT64:
            return _read_int(kind, value, place, _INT64)
        case Scalar.DOUBLE:
            return _read_double(value, place)
        case Scalar.BYTES:
            return _read_bytes(value, place)
        case Scalar.DURATION:
            return read_duration(value, place)
        case Scalar.TIMESTAMP:
            return read_time(value, place)
        case Scalar.MASK:
            return _read_mask(value, place)
        case Scalar.HEADERS:
            return {_text(key, place): _text(of, place) for key, of in _of(dict, kind, value, place).items()}
        case Scalar.JSON:
            return value
        case _:
            assert_never(kind)


def _of(kind: type, scalar: Scalar, value: Any, place: str) -> Any:
    if not isinstance(value, kind):
        raise _wrong(place, scalar.value, value)
    return _text(value, place) if isinstance(value, str) else value


def _text(value: Any, place: str) -> str:
    """Return a text that can be stored: no lone surrogates, no NUL."""
    if not isinstance(value, str):
        raise _wrong(place, Scalar.STRING.value, value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _wrong(place, Scalar.STRING.value, "text that is not Unicode") from None
    if "\0" in value:
        raise _wrong(place, Scalar.STRING.value, "text with NUL")
    return value


def _read_int(kind: Scalar, value: Any, place: str, bounds: range) -> int:
    number = value
    if (isinstance(value, str) and _INTEGER.fullmatch(value)) or (isinstance(value, float) and value.is_integer()):
        number = int(value)
    if not isinstance(number, int) or isinstance(number, bool) or number not in bounds:
        raise _wrong(place, kind.value, value)
    return number


def _read_double(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise _wrong(place, Scalar.DOUBLE.value, value)
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise _wrong(place, Scalar.DOUBLE.value, value) from None


def _read_bytes(value: Any, place: str) -> bytes:
    if not isinstance(value, str):
        raise _wrong(place, Scalar.BYTES.value, value)
    plain = value.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise invalid(f"Invalid value at '{place}' (TYPE_BYTES), Base64 decoding failed.") from None


def read_duration(value: Any, place: str) -> float:
    """Return the seconds of a duration such as ``"3.5s"``."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[2]) > _LONGEST_DURATION:
        raise _wrong(place, Scalar.DURATION.value, value)
    seconds = float(f"{match[2]}.{match[3] or 0}")
    return -seconds if match[1] else seconds


def read_time(value: Any, place: str) -> float:
    """Return the Unix seconds of an RFC 3339 time, exact to the microsecond."""
    match = _TIMESTAMP.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise _wrong(place, Scalar.TIMESTAMP.value, value)
    zone = "+00:00" if match[4] in "Zz" else match[4]
    try:
        whole = datetime.fromisoformat(f"{match[1]}T{match[2]}{zone}").timestamp()
    except (ValueError, OverflowError):
        raise _wrong(place, Scalar.TIMESTAMP.value, value) from None
    return microseconds(whole + int((match[3] or ".0")[1:7].ljust(6, "0")) / 1e6)


def _read_mask(value: Any, place: str) -> list[str]:
    if not isinstance(value, str):
        raise _wrong(place, Scalar.MASK.value, value)
    return [".".join(snake(part) for part in path.strip().split(".")) for path in value.split(",") if path.strip()]


def _wrong(place: str, kind: str, value: Any) -> CloudTasksError:
    return invalid(f"Invalid value at '{place}' ({kind}), {_shown(value)}")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=repr)
    return text[:100].encode("utf-8", "replace").decode()


# --- writing --------------------------------------------------------------------------------------------------------


def write_message(shapes: Shapes, message: str, fields: Fields, *, numbers: bool = False) -> dict[str, Any]:
    """Return the JSON of a message; fields that the message does not have are left out.

    Args:
        shapes: of the version.
        message: which.
        fields: what it holds.
        numbers: whether enums are written as numbers.
    """
    written: dict[str, Any] = {}
    for name, kind in shapes[message].items():
        value = fields.get(name)
        if value is None or (not isinstance(kind, (Of, Optional)) and _is_default(kind, value)):
            continue
        written[camel(name)] = _write(shapes, kind, value, numbers=numbers)
    return written


def _is_default(kind: Kind, value: Any) -> bool:
    return kind not in (Scalar.DURATION, Scalar.TIMESTAMP, Scalar.JSON) and not value


def _write(shapes: Shapes, kind: Kind, value: Any, *, numbers: bool) -> Any:
    match kind:
        case Of(message):
            return write_message(shapes, message, value, numbers=numbers)
        case Many(of):
            return [_write(shapes, of, item, numbers=numbers) for item in value]
        case EnumOf(names=names):
            return names.index(value) if numbers else value
        case Optional(of):
            return _write(shapes, of, value, numbers=numbers)
        case Scalar():
            return _write_scalar(kind, value)
        case _:
            assert_never(kind)


def _write_scalar(kind: Scalar, value: Any) -> Any:
    match kind:
        case Scalar.BYTES:
            return base64.b64encode(value).decode()
        case Scalar.INT64:
            return str(value)
        case Scalar.DURATION:
            return write_duration(value)
        case Scalar.TIMESTAMP:
            return write_time(value)
        case Scalar.MASK:
            return ",".join(".".join(camel(part) for part in path.split(".")) for path in value)
        case Scalar.DOUBLE if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case _:
            return value


def write_duration(seconds: float) -> str:
    """Return a duration with as many digits as it needs: none, three, six or nine.

    >>> write_duration(3.5), write_duration(600.0), write_duration(16777216.001)
    ('3.500s', '600s', '16777216.001s')
    """
    # Of the digits of a large float the last are chance; its shortest form has those that were meant.
    whole, nanos = divmod(int((Decimal(repr(abs(seconds))) * 1_000_000_000).to_integral_value()), 1_000_000_000)
    return f"{'-' if seconds < 0 else ''}{whole}{_fraction(nanos)}s"


def write_time(seconds: float) -> str:
    """Return a time in RFC 3339, in UTC.

    >>> write_time(1700000000.25)
    '2023-11-14T22:13:20.250Z'
    """
    whole, micros = divmod(round(seconds * 1e6), 1_000_000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}{_fraction(micros * 1000)}Z"


def _fraction(nanos: int) -> str:
    digits = f"{nanos:09d}"
    if not nanos:
        return ""
    if digits.endswith("000000"):
        return f".{digits[:3]}"
    return f".{digits[:6]}" if digits.endswith("000") else f".{digits}"
