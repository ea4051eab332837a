"""Conditions of a definition, compiled once: what decides which steps of a run are skipped.

A condition is a comparison of expressions, a combination of conditions, or a reference to a boolean. Comparing follows
Python: numbers with numbers, texts with texts by their characters, and what is of different types is not equal.
"""

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from hopline_engine.core.binding import BindingError, Expression, Literal, Ref, Scope, compile_expression, decoded
from hopline_engine.core.definition import GuardSpec

_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Condition(Protocol):
    """Something of a definition that is true or false in a scope."""

    def holds(self, scope: Scope) -> bool:
        """Return whether it is true.

        Raises:
            BindingError: a value it needs is not there, or cannot be compared.
        """
        ...

    def sources(self) -> Iterator[str]:
        """Yield the nodes (and ``$input``) whose values are needed."""
        ...

    def words(self) -> str:
        """Return it as people would write it: ``order.total > 5000``."""
        ...


@dataclass(frozen=True, slots=True)
class Truth:
    """A value that is true or false itself; null counts as false."""

    value: Ref

    def holds(self, scope: Scope) -> bool:
        """Return the value."""
        found = self.value.resolve(scope)
        if found is None or isinstance(found, bool):
            return bool(found)
        raise BindingError(f"{self.words()} is a condition, but neither true nor false: {_short(found)}")

    def sources(self) -> Iterator[str]:
        """Yield the source of the value."""
        return self.value.sources()

    def words(self) -> str:
        """Return the path of the value."""
        return _words(self.value)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two values compared."""

    operator: str
    left: Expression
    right: Expression

    def holds(self, scope: Scope) -> bool:
        """Return whether the values compare as the operator says."""
        left, right = _value(self.left, scope), _value(self.right, scope)
        try:
            return bool(_OPERATORS[self.operator](left, right))
        except TypeError:
            raise BindingError(f"{self.words()} compares {_short(left)} with {_short(right)}") from None

    def sources(self) -> Iterator[str]:
        """Yield the sources of both values."""
        yield from self.left.sources()
        yield from self.right.sources()

    def words(self) -> str:
        """Return both values with the operator between them."""
        return f"{_words(self.left)} {self.operator} {_words(self.right)}"


@dataclass(frozen=True, slots=True)
class Combination:
    """Several conditions taken together: all of them, any of them, or the opposite of the only one."""

    operator: str
    parts: tuple[Condition, ...]

    def holds(self, scope: Scope) -> bool:
        """Return what the parts are together; those that cannot change it are not looked at."""
        parts = (part.holds(scope) for part in self.parts)
        match self.operator:
            case "all_of":
                return all(parts)
            case "any_of":
                return any(parts)
            case _:
                return not next(parts)

    def sources(self) -> Iterator[str]:
        """Yield the sources of all parts."""
        for part in self.parts:
            yield from part.sources()

    def words(self) -> str:
        """Return the parts as they were written."""
        return f"{self.operator}({', '.join(part.words() for part in self.parts)})"


class Guard(NamedTuple):
    """What must be so for a step to run."""

    condition: Condition
    expected: bool

    def passes(self, scope: Scope) -> bool:
        """Return whether it is so. Raises as ``Condition.holds`` does."""
        return self.condition.holds(scope) is self.expected

    def words(self) -> str:
        """Return what was found where it does not pass: ``order.total > 5000 is false``."""
        return f"{self.condition.words()} is {'false' if self.expected else 'true'}"


def compile_guards(specs: list[GuardSpec]) -> tuple[Guard, ...]:
    """Return guards as a definition describes them. Raises ValueError for a condition that is malformed."""
    return tuple(Guard(compile_condition(spec.condition), spec.expected) for spec in specs)


def compile_condition(value: Any) -> Condition:
    """Return the condition that a JSON value of a definition describes.

    Raises:
        ValueError: it is none.
    """
    match value:
        case {"$op": str(name), "args": [left, right], **rest} if name in _OPERATORS and not rest:
            return Comparison(name, compile_expression(left), compile_expression(right))
        case {"$op": "all_of" | "any_of" as name, "args": [_, *_] as parts, **rest} if not rest:
            return Combination(name, tuple(map(compile_condition, parts)))
        case {"$op": "not_", "args": [part], **rest} if not rest:
            return Combination("not_", (compile_condition(part),))
        case {"$ref": _}:
            compiled = compile_expression(value)
            if isinstance(compiled, Ref):
                return Truth(compiled)
    raise ValueError(f"unknown or malformed condition {value!r}")


def _value(expression: Expression, scope: Scope) -> Any:
    return expression.resolve(scope) if isinstance(expression, Ref) else decoded(expression, scope)


def _words(expression: Expression) -> str:
    match expression:
        case Ref(source=source, path=path):
            names = [*([] if source.startswith("$") and path else [source]), *map(str, path)]
            return ".".join(names)
        case Literal(raw=raw):
            return raw.decode()
    return "a value"


def _short(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else f"{text[:59]}…"
