"""Conditions on results: what comparing results gives in a workflow body, and what may be compared.

To type checkers a condition is a bool. At run time it stands for one that is known only while the run is under way,
and is good for one thing: to choose, in ``branch`` and the like. Everything else that would need its value is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeGuard

from hopline.definition import Json
from hopline.markers import NUL
from hopline.shape import Shape
from hopline.trace import Reference, Wiring, current

_ORDERED = frozenset({"<", "<=", ">", ">="})
_NULL = frozenset({"null"})
_DECIMAL = "(?!^[-+.]*$)"
"""How pydantic's pattern of decimal numbers begins."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a condition stands for."""

    wiring: Wiring
    expr: Json
    references: tuple[Reference, ...]
    """The values that it looks at."""
    words: str


class Condition:
    """A bool that is known only while the run is under way."""

    __slots__ = ("__hopline__",)
    __hopline__: Claim

    def __init__(self, claim: Claim) -> None:
        object.__setattr__(self, "__hopline__", claim)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        _refuse(self, f".{name}")

    def __format__(self, spec: str) -> NoReturn:
        _refuse(self, "a text")

    def __repr__(self) -> str:
        claim = claim_of(self)
        return f"<condition {claim.words}>{NUL if current.get() is claim.wiring else ''}"

    __hash__ = object.__hash__


def claim_of(condition: Condition) -> Claim:
    """Return what *condition* stands for."""
    return condition.__hopline__


def is_condition(value: object) -> TypeGuard[Condition]:
    """Return whether *value* is a condition."""
    return type(value) is Condition


def _refuse(condition: Condition, what: str) -> NoReturn:
    claim = claim_of(condition)
    claim.wiring.refuse(f"{what} needs the value of the condition {claim.words}, which no workflow body has", HINT)


HINT = (
    "conditions choose: write branch(condition, then=..., otherwise=...); join them with all_of(), any_of() and "
    "not_(); to pass a bool on, compare inside a step"
)
_REFUSED = {
    "a truth test": "bool",
    "a comparison": "eq ne lt le gt ge",
    "an operator": "and rand or ror xor rxor invert add radd sub rsub mul rmul neg",
    "a conversion": "str int float index",
    "iteration": "iter len contains getitem",
    "a call": "call",
}


def _refusing(what: str) -> Callable[..., NoReturn]:
    def refuse(self: Condition, *_: object) -> NoReturn:
        _refuse(self, what)

    return refuse


for _what, _names in _REFUSED.items():
    for _name in _names.split():
        setattr(Condition, f"__{_name}__", _refusing(_what))


def incomparable(operator: str, left: Shape, right: Shape) -> tuple[str, str] | None:
    """Return why comparing the two tells nothing, and what to do instead; None when it does, or may."""
    ours, theirs = left.kinds(), right.kinds()
    if operator not in _ORDERED and _NULL in (ours, theirs):
        is_never = ours is not None and theirs is not None and not ours & theirs
        return (f"{left.words()} is compared with {right.words()}", "it is never null") if is_never else None
    for shape in (left, right):
        kinds = shape.kinds()
        if kinds is not None and kinds <= {"object", "array"}:
            return f"{shape.words()} is compared", "compare one of its fields, or compare inside a step"
        if any(_is_value_in_a_text(option) for option in shape.options()):
            return (
                "times, durations and decimal numbers are texts in the run, which compare as texts",
                "compare them inside a step",
            )
    if ours is None or theirs is None:
        return None
    if not _alike(ours) & _alike(theirs):
        return f"{left.words()} is compared with {right.words()}", "it is never equal; compare values of one type"
    if operator in _ORDERED and not _alike(ours) & _alike(theirs) & {"number", "string"}:
        return f"{left.words()} has no order", "only numbers, texts and dates have; compare inside a step"
    return None


def _is_value_in_a_text(option: Shape) -> bool:
    named, pattern = option.keyword("format", None), option.keyword("pattern", "")
    return named in {"date-time", "time", "duration"} or (isinstance(pattern, str) and _DECIMAL in pattern)


def _alike(kinds: frozenset[str]) -> frozenset[str]:
    return frozenset("number" if kind == "integer" else kind for kind in kinds)


def literal_shape(value: Any) -> Shape:
    """Return the shape of a JSON value.

    >>> literal_shape(True).words(), literal_shape([1]).words()
    ('a boolean', 'a list')
    """
    kinds: dict[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return Shape({"type": "null" if value is None else kinds.get(type(value), "object")})
