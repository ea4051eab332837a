"""Strategies for any message of Google's, made from its descriptor."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

Strategy = st.SearchStrategy[Any]

TEXTS: Final = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
_DEEPEST: Final = 6
_EXACT: Final = 2**32 - 1
"""Seconds up to which a float tells microseconds apart: the year 2106."""

_SCALARS: Final[Mapping[int, Strategy]] = {
    FieldDescriptor.TYPE_DOUBLE: st.floats(allow_nan=False).map(lambda value: value or 0.0),
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1) | st.integers(-2, 200),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 200),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_STRING: TEXTS,
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=20),
}


@st.composite
def _timestamps(draw: st.DrawFn) -> dict[str, int]:
    return {"seconds": draw(st.integers(-_EXACT, _EXACT)), "nanos": draw(st.integers(0, 999_999)) * 1000}


@st.composite
def _durations(draw: st.DrawFn) -> dict[str, int]:
    sign = draw(st.sampled_from([1, -1]))
    return {"seconds": sign * draw(st.integers(0, 10**9)), "nanos": sign * draw(st.integers(0, 999)) * 1_000_000}


_paths = st.lists(
    st.from_regex(r"[a-z]{1,8}(_[a-z]{1,8})?(\.[a-z]{1,8}(_[a-z]{1,8})?)?", fullmatch=True), min_size=1, max_size=3
)
_WELL_KNOWN: Final[Mapping[str, Strategy]] = {
    "google.protobuf.Timestamp": _timestamps(),
    "google.protobuf.Duration": _durations(),
    "google.protobuf.FieldMask": _paths.map(lambda paths: {"paths": paths}),
}
_ANY: Final = frozenset({"google.protobuf.Any", "google.protobuf.Struct"})
"""Messages that can hold everything; they are left out."""


def messages(kind: type[Message], texts: Mapping[str, Strategy] | None = None) -> st.SearchStrategy[Message]:
    """Return a strategy for messages of a kind; *texts* are strategies for text by the names of fields."""
    return _fields(kind.DESCRIPTOR, tuple((texts or {}).items()), _DEEPEST).map(lambda fields: kind(**fields))


@cache
def _fields(kind: Descriptor, texts: tuple[tuple[str, Strategy], ...], depth: int) -> Strategy:
    parts = {
        field.name: strategy
        for field in kind.fields
        if field.containing_oneof is None or _is_optional(field)
        if (strategy := _field(field, texts, depth)) is not None
    }
    fixed = st.fixed_dictionaries({}, optional=parts)
    for oneof in kind.oneofs:
        choices = [(field.name, _field(field, texts, depth)) for field in oneof.fields if not _is_optional(field)]
        one = st.one_of(
            st.just({}),
            *(strategy.filter(_is_said).map(_named(name)) for name, strategy in choices if strategy is not None),
        )
        fixed = st.builds(_merged, fixed, one)
    return fixed


def _named(name: str) -> Any:
    return lambda value: {name: value}


def _is_said(value: Any) -> bool:
    """Whether a value in a choice of fields says more than that it was chosen, which is not told apart."""
    return isinstance(value, dict) or bool(value)


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    return {**one, **other}


def _is_optional(field: FieldDescriptor) -> bool:
    """Whether a field is in a group of its own that only says whether it is there."""
    return field.containing_oneof is not None and field.containing_oneof.name.startswith("_")


def _field(field: FieldDescriptor, texts: tuple[tuple[str, Strategy], ...], depth: int) -> Strategy | None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return st.dictionaries(TEXTS, TEXTS, max_size=3)
    one = _value(field, texts, depth)
    return st.lists(one, max_size=3) if one is not None and field.is_repeated else one


def _value(field: FieldDescriptor, texts: tuple[tuple[str, Strategy], ...], depth: int) -> Strategy | None:
    if field.message_type is not None:
        name = field.message_type.full_name
        if name in _ANY or depth == 0:
            return None
        return _WELL_KNOWN[name] if name in _WELL_KNOWN else _fields(field.message_type, texts, depth - 1)
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values if value.number > 0])
    return dict(texts).get(field.name, _SCALARS[field.type])
