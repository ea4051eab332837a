"""Python values of a workflow body as expressions: JSON with references, texts and secrets in it.

An expression is JSON, or an object with exactly one marker key: ``$ref`` (with ``path``), ``$text``, ``$secret`` or
``$literal``. The last wraps an object of the user's that has a key starting with ``$`` itself, so that no data can
be taken for a reference.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn, cast

from pydantic_core import PydanticSerializationError

from hopline.conditions import HINT, claim_of, is_condition
from hopline.definition import Expr
from hopline.markers import ResultMark, Secret, may_hold_marks, readable, split
from hopline.schema import jsonable
from hopline.steps import Step
from hopline.trace import Symbol, is_symbol

_OPEN_MARKERS = ("$ref", "$text", "$secret")
_BUILD_IN_STEP = "build it inside a step, where there are values to check; plain lists and dicts may hold results"

Refuse = Callable[[str, str], NoReturn]
"""Raises the DefinitionError for a message and a hint."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """Turns one value into an expression."""

    what: str
    """What the value is, for messages."""
    secrets: bool = False
    """Whether it may hold secrets, as only requests may."""
    reference: Callable[[Symbol], Expr]
    mark: Callable[[ResultMark], Expr]
    refuse: Refuse

    def encode(self, value: object) -> Expr:
        """Return the expression for *value*; refuse what cannot be one."""
        kind = type(value)
        if is_symbol(value):
            return self.reference(value)
        if value is None or kind is bool or kind is int:
            return value
        if kind is str or kind is Secret:
            return self._text(value) if isinstance(value, str) else self._secret(cast("Secret", value))
        if kind is float:
            return self._finite(cast("float", value))
        if kind is list or kind is tuple:
            return [self.encode(member) for member in cast("list[object]", value)]
        if kind is dict and all(type(key) is str for key in cast("dict[object, object]", value)):
            return self._object(cast("dict[str, object]", value))
        return self._typed(value)

    def _text(self, text: str) -> Expr:
        self._encodable(text)
        if not may_hold_marks(text):
            return text
        parts = split(text)
        if parts is None:
            self.refuse(
                f"{self.what} holds a NUL character, or a text that was changed after a result was put in: "
                f"{readable(text)!r}",
                'NUL cannot be stored; put results in texts with f"{result}" alone and change texts inside a step',
            )
        return {"$text": [self._part(part) for part in parts]}

    def _part(self, part: str | ResultMark | Secret) -> Expr:
        if isinstance(part, str):
            return part
        return self._secret(part) if isinstance(part, Secret) else self.mark(part)

    def _secret(self, secret: Secret) -> Expr:
        if not self.secrets:
            self.refuse(
                f"{self.what} holds {secret!r}, but only requests of HTTP steps take secrets",
                "put it in the request of an @http step; a Python step reads its own environment",
            )
        return {"$secret": secret.name}

    def _finite(self, number: float) -> Expr:
        if not math.isfinite(number):
            self.refuse(f"{self.what} is {number}, which JSON cannot say", "use a finite number, or None")
        return number

    def _object(self, value: dict[str, object]) -> Expr:
        for key in value:
            self._encodable(key)
            if may_hold_marks(key):
                self.refuse(
                    f"{self.what} has a key with a result or a NUL in it: {readable(key)!r}",
                    "keys are fixed; make such an object inside a step",
                )
        members = {key: self.encode(member) for key, member in value.items()}
        if not any(key.startswith("$") for key in members):
            return members
        if not all(is_literal(member) for member in members.values()):
            self.refuse(
                f"{self.what} is an object with a result in it and a key that starts with '$'",
                "beside such a key only plain data can stand; make the object inside a step",
            )
        return {"$literal": {key: literal_value(member) for key, member in members.items()}}

    def _typed(self, value: object) -> Expr:
        name = type(value).__name__
        if is_condition(value):
            self.refuse(f"{self.what} is the condition {claim_of(value).words}, whose value no workflow body has", HINT)
        if isinstance(value, Step):
            self.refuse(f"{self.what} is the step {value.name} itself, not its result", f"call it: {value.name}(...)")
        if isinstance(value, Iterator):
            self.refuse(f"{self.what} is a {name}", "make a list of it: [...] instead of (...)")
        if holds_results(value):
            self.refuse(f"{self.what} is a {name} made from results", _BUILD_IN_STEP)
        try:
            return self.encode(jsonable(value))
        except (PydanticSerializationError, ValueError) as error:
            self.refuse(
                f"{self.what} is a {name}, which cannot be written as JSON: {error}",
                "pass JSON, pydantic models, dataclasses, dates or enums; make other values inside a step",
            )

    def _encodable(self, text: str) -> None:
        try:
            text.encode()
        except UnicodeEncodeError:
            self.refuse(f"{self.what} holds a lone surrogate: {text!r}", "decode the bytes with their real encoding")


def is_open(expr: Mapping[str, Expr]) -> bool:
    """Return whether *expr* itself stands for a value of the run: a reference, a text with such, a secret."""
    return any(marker in expr for marker in _OPEN_MARKERS)


def is_literal(expr: Expr) -> bool:
    """Return whether *expr* has its value already, without any run."""
    if isinstance(expr, dict):
        return "$literal" in expr or (not is_open(expr) and all(map(is_literal, expr.values())))
    return not isinstance(expr, list) or all(map(is_literal, expr))


def literal_value(expr: Expr) -> Any:
    """Return the JSON value of a literal expression."""
    if isinstance(expr, dict):
        return expr["$literal"] if "$literal" in expr else {key: literal_value(value) for key, value in expr.items()}
    return [literal_value(value) for value in expr] if isinstance(expr, list) else expr


def holds_results(value: object) -> bool:
    """Return whether a symbol, a secret or a text with one is anywhere in *value*, also in fields of objects."""
    return _holds_results(value, set())


def _holds_results(value: object, seen: set[int]) -> bool:
    if is_symbol(value) or type(value) is Secret:
        return True
    if isinstance(value, str):
        return may_hold_marks(value)
    if id(value) in seen:
        return False
    seen.add(id(value))
    return any(_holds_results(member, seen) for member in _members(value))


def _members(value: object) -> Iterable[object]:
    if isinstance(value, type):
        return ()
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, list | tuple | set | frozenset):
        return value
    if dataclasses.is_dataclass(value):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    return list(getattr(value, "__dict__", {}).values())
