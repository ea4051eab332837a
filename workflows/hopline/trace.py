"""Symbolic values: what parameters and results are while a workflow body is traced.

To type checkers a symbol *is* the value it stands for. At run time it is a path into a result that does not exist
yet: attributes and items lengthen the path, an f-string takes it in as a mark, and everything that would need the
value is refused with the user's line and what to do instead. What a call of a step does while tracing is decided by
the ``Wiring`` in force; this module knows neither steps nor graphs.
"""

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeGuard

from hopline.markers import NUL
from hopline.shape import Key, Shape

INPUT = "$input"
ITEM = "$item"


class Control(Protocol):
    """What a workflow body does with conditions and choices while it is traced."""

    def compare(self, operator: str, left: "Symbol", right: object) -> Any:
        """Return the condition that *left* compares with *right* as *operator* says."""
        ...

    def combine(self, operator: str, conditions: tuple[object, ...]) -> Any:
        """Return the condition that *conditions* make together: ``all_of``, ``any_of`` or ``not_``."""
        ...

    def branch(self, condition: object, then: Any, otherwise: Any) -> Any:
        """Trace both arms and return the symbol of the result of the one that the condition chooses."""
        ...

    def switch(self, value: object, cases: Any, default: Any) -> Any:
        """Trace all arms and return the symbol of the result of the one that *value* chooses."""
        ...

    def recover(self, primary: Any, fallback: Any, on: object) -> Any:
        """Trace both parts and return the symbol of the result of the one that is used."""
        ...

    def first(self, arms: tuple[Any, ...]) -> Any:
        """Trace all arms and return the symbol of the result of the one that succeeds first."""
        ...


class Wiring(Protocol):
    """The trace of one workflow body, as far as symbols and steps need to know it."""

    @property
    def control(self) -> Control:
        """Conditions and choices of this body."""
        ...

    def call(self, step: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Add a node for a call of *step* and return the symbol of its result."""
        ...

    def map(
        self, step: Any, items: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, settled: bool = False
    ) -> Any:
        """Add a node that calls *step* for each of *items* and return the symbol of the list of results.

        *settled* makes that a list of ``Ok`` and ``Err``.
        """
        ...

    def loop(self, body: Any, start: Any, *, until: Any, limit: int, every: str | None) -> Any:
        """Add a node that repeats *body* and return the symbol of the result of the last lap."""
        ...

    def wait(self, wait: Any) -> Any:
        """Add a node that waits, a ``waiting.Wait``, and return the symbol of what it waits for."""
        ...

    def refuse(self, message: str, hint: str) -> NoReturn:
        """Raise the DefinitionError for the user's line that is being executed."""
        ...

    def text_mark(self, reference: "Reference", spec: str) -> str:
        """Return the mark that stands for *reference*, formatted by *spec*, in a text."""
        ...


current: ContextVar[Wiring | None] = ContextVar("hopline_wiring", default=None)
"""The wiring in force; None outside workflow bodies, where steps run plainly."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What a symbol stands for: the value at *path* in the result of *node*."""

    wiring: Wiring
    node: str
    path: tuple[Key, ...]
    shape: Shape

    def __str__(self) -> str:
        names = [self.node, *map(str, self.path)] if self.node not in (INPUT, ITEM) else [*map(str, self.path)]
        return ".".join(names) or "the element"

    def to_json(self) -> dict[str, Any]:
        """Return the expression for this value."""
        return {"$ref": self.node, "path": list(self.path)}

    def at(self, key: object) -> "Reference":
        """Return the value behind *key*; refuse one that the declared type does not have."""
        if is_symbol(key) or not isinstance(key, str | int) or isinstance(key, bool):
            self.wiring.refuse(
                f"{self}[...] is looked up by {_words(key)}",
                "only names and whole numbers are paths; look it up inside a step",
            )
        place = self.shape.at(key)
        if place is None:
            self.wiring.refuse(f"{self} has no {key!r}: its type is {self.shape.words()}", self._path_hint(key))
        json_key, shape = place
        return Reference(self.wiring, self.node, (*self.path, json_key), shape)

    def _path_hint(self, key: Key) -> str:
        is_list = (self.shape.kinds() or frozenset()) == frozenset({"array"}) and not isinstance(key, int)
        if is_list and self.shape.keyword("prefixItems", None):
            return "a tuple is passed on as a list: take its parts by number, as in pair[0]"
        if is_list and not hasattr(list, str(key)):
            return "to take a field of every element, map a step over the list"
        close, fields = self.shape.suggestion(key), self.shape.fields()
        if close:
            return f"did you mean {close!r}?"
        if isinstance(key, str) and any(hasattr(kind, key) for kind in (str, list, dict, int, float)):
            return f"methods run on values, which a workflow body does not have yet; call .{key} inside a step"
        if fields:
            return f"it has {', '.join(repr(name) for name in fields)}"
        return "declare it in the return type of the step, or take the value apart inside a step"


class Symbol:
    """A value that is known only while the run is under way. Its one slot cannot be a field: fields are no dunders."""

    __slots__ = ("__hopline__",)
    __hopline__: Reference

    def __init__(self, reference: Reference) -> None:
        object.__setattr__(self, "__hopline__", reference)

    def __getattr__(self, name: str) -> "Symbol":
        # Python and its libraries probe for protocols by dunder names; those are never paths.
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return Symbol(reference_of(self).at(name))

    def __getitem__(self, key: object) -> "Symbol":
        return Symbol(reference_of(self).at(key))

    def __format__(self, spec: str) -> str:
        reference = reference_of(self)
        return reference.wiring.text_mark(reference, spec)

    def __repr__(self) -> str:
        # The NUL gives a repr away that ended up in a text, as in f"{[result]}" or f"{result!r}".
        return f"<result {reference_of(self)}>{NUL if current.get() is reference_of(self).wiring else ''}"

    @property  # type: ignore[misc]  # object allows assigning to it
    def __class__(self) -> type:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Answer ``isinstance``: refused in the workflow body, where its False would silently pick the wrong branch."""
        reference = reference_of(self)
        if current.get() is reference.wiring:
            reference.wiring.refuse(
                f"isinstance() needs the value of {reference}, which no workflow body has",
                "decide, convert and build typed values from results inside a step",
            )
        return Symbol

    def __copy__(self) -> "Symbol":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Symbol":
        return self

    __hash__ = object.__hash__


def reference_of(symbol: Symbol) -> Reference:
    """Return what *symbol* stands for."""
    return symbol.__hopline__


def is_symbol(value: object) -> TypeGuard[Symbol]:
    """Return whether *value* is symbolic; ``isinstance`` would ask the symbol, which refuses to answer."""
    return type(value) is Symbol


def _words(key: object) -> str:
    if is_symbol(key):
        return "another result"
    return "a slice" if isinstance(key, slice) else f"a {type(key).__name__}"


_IN_A_STEP = "a workflow body runs once, before there are values; do it inside a step"
_REFUSED: tuple[tuple[str, str, str], ...] = (
    (
        "bool",
        "a truth test",
        "for if write branch(result, then=..., otherwise=...); for and, or and not write all_of(), any_of() and not_()",
    ),
    ("len length_hint", "len()", "count inside a step"),
    ("iter next reversed aiter anext", "iteration", "use step.map(items); to unpack a tuple, index it: pair[0]"),
    ("contains", "`in`", "look for it inside a step"),
    (
        """add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod divmod rdivmod pow rpow
        matmul rmatmul and rand or ror xor rxor lshift rlshift rshift rrshift neg pos abs invert round trunc floor
        ceil""",
        "arithmetic",
        'calculate inside a step; to join text write an f-string: f"{a}-{b}"',
    ),
    ("call", "a call", f"results have no methods: {_IN_A_STEP}"),
    ("str", "str()", 'to put it in a text write an f-string: f"{result}"'),
    ("index", "a whole number, as range() takes it,", "make the list inside a step and map over it"),
    ("int float complex bytes fspath", "a conversion", "convert inside a step"),
    ("setattr delattr setitem delitem", "a change", "results are fixed; make the changed value inside a step"),
    ("enter exit aenter aexit", "`with`", "open and close things inside a step"),
    ("await", "`await`", "a workflow body only wires: call steps without await, also the async ones"),
    ("reduce_ex", "pickling", "results live in the run, not in the process that compiles; pass them to steps"),
)


def _refusing(what: str, hint: str) -> Callable[..., NoReturn]:
    def refuse(self: Symbol, *_: object) -> NoReturn:
        reference = reference_of(self)
        reference.wiring.refuse(f"{what} needs the value of {reference}, which no workflow body has", hint)

    return refuse


def _comparing(operator: str) -> "Callable[[Symbol, object], Any]":
    def compare(self: Symbol, other: object) -> Any:
        return reference_of(self).wiring.control.compare(operator, self, other)

    return compare


for _names, _what, _hint in _REFUSED:
    for _name in _names.split():
        setattr(Symbol, f"__{_name}__", _refusing(_what, _hint))
for _name, _operator in {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}.items():
    setattr(Symbol, f"__{_name}__", _comparing(_operator))
