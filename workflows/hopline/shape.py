"""Shape: a place in a JSON schema. Answers which fields and elements a value has.

Works on plain schema objects. Where a schema leaves a question open the answer is lenient: a wrong refusal would
make a correct workflow impossible, while a wrong pass only delays the error to the run.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

NAMES = "x-hopline-names"
"""Keyword of object schemas whose JSON keys are aliases: the Python field names, each with its key."""

Key = str | int
_WORDS = {
    "string": "text",
    "integer": "a number",
    "number": "a number",
    "boolean": "a boolean",
    "null": "null",
    "array": "a list",
    "object": "an object",
}


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": sorted(properties),
        "additionalProperties": False,
    }


_TEXT = {"type": "string"}
_STATUS = {"anyOf": [{"type": "integer"}, {"type": "null"}]}
_ERR = _object({"err": _object({"type": _TEXT, "message": _TEXT, "status": _STATUS})})


@dataclass(frozen=True, slots=True)
class Shape:
    """A schema with the definitions that its ``$ref`` point to."""

    schema: Mapping[str, Any] | bool
    defs: Mapping[str, Any] = field(default_factory=dict)
    every: bool = False
    """Whether it may be each of its members, the arms of a choice: what is done with a value must suit all of them."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Shape":
        """Return the root of a whole schema document."""
        return cls(document, document.get("$defs", {}))

    def sub(self, schema: Mapping[str, Any] | bool) -> "Shape":
        """Return another schema of the same document."""
        return Shape(schema, self.defs)

    def listed(self) -> "Shape":
        """Return the shape of a list of these."""
        return self.sub({"type": "array", "items": self.schema})

    def settled(self) -> "Shape":
        """Return the shape of what became of one of these: an ``Ok`` or an ``Err``."""
        return self.sub({"anyOf": [_object({"ok": self.schema}) | {NAMES: {"value": "ok"}}, _ERR]})

    def at(self, key: Key) -> "tuple[Key, Shape] | None":
        """Return the JSON key and the shape behind *key*, or None if no value of this shape has it."""
        if self.every:
            return self._in_every(key)
        found = [place for option in self.options() if (place := _behind(option, key)) is not None]
        return (found[0][0], self._any_of([shape for _, shape in found])) if found else None

    def element(self) -> "Shape | None":
        """Return the shape of the elements of a list, or None if this is surely not a list."""
        if self.every:
            elements = [arm.element() for arm in self.arms()]
            return None if None in elements else self._each_of([each for each in elements if each is not None])
        found = [element for option in self.options() for element in _elements(option)]
        return self._any_of(found) if found else None

    def arms(self) -> "list[Shape]":
        """Return the members of which it may be each; itself, where it is no choice."""
        return [self.sub(member) for member in self.keyword("anyOf", [])] if self.every else [self]

    def kinds(self) -> frozenset[str] | None:
        """Return the JSON types that a value may have, or None when it may have any."""
        kinds: set[str] = set()
        for option in self.options():
            own = _own_kinds(option)
            if own is None:
                return None
            kinds |= own
        return frozenset(kinds)

    def words(self) -> str:
        """Return what this is in a few words, for messages."""
        kinds = self.kinds()
        return "anything" if kinds is None else " or ".join(sorted({_WORDS.get(kind, kind) for kind in kinds}))

    def fields(self) -> list[str]:
        """Return the names of all fields that a value of this shape may have, as they are written in Python."""
        names: set[str] = set()
        for option in self.options():
            name_of = {key: name for name, key in option.keyword(NAMES, {}).items()}
            names |= {name_of.get(key, key) for key in option.keyword("properties", {})}
        return sorted(names)

    def suggestion(self, key: Key) -> str | None:
        """Return the field that may have been meant by *key*, which this shape does not have."""
        return next(iter(get_close_matches(str(key), self.fields(), n=1)), None)

    def options(self) -> "Iterator[Shape]":
        """Yield this shape, or the members of the union that it is, references followed."""
        return _options(self, ())

    def keyword(self, name: str, default: Any) -> Any:
        """Return what the schema itself says under *name*."""
        return self.schema.get(name, default) if isinstance(self.schema, Mapping) else default

    def _in_every(self, key: Key) -> "tuple[Key, Shape] | None":
        places = [arm.at(key) for arm in self.arms()]
        found = [place for place in places if place is not None]
        if len(found) < len(places) or len({json_key for json_key, _ in found}) > 1:
            return None
        return found[0][0], self._each_of([shape for _, shape in found])

    def _each_of(self, shapes: "list[Shape]") -> "Shape":
        return Shape({"anyOf": [shape.schema for shape in shapes]}, self.defs, every=True)

    def _any_of(self, shapes: "list[Shape]") -> "Shape":
        return shapes[0] if len(shapes) == 1 else self.sub({"anyOf": [shape.schema for shape in shapes]})


def _options(shape: Shape, seen: tuple[str, ...]) -> Iterator[Shape]:
    reference = shape.keyword("$ref", None)
    if reference is not None:
        name = str(reference).rpartition("/")[2]
        if name not in seen:  # a union may name itself
            yield from _options(shape.sub(shape.defs.get(name, True)), (*seen, name))
        return
    together = shape.keyword("allOf", [])
    members = [*shape.keyword("anyOf", []), *shape.keyword("oneOf", []), *(together if len(together) == 1 else [])]
    if not members:
        yield shape
    for member in members:
        yield from _options(shape.sub(member), seen)


def _own_kinds(option: Shape) -> frozenset[str] | None:
    declared = option.keyword("type", None)
    if isinstance(declared, str):
        return frozenset({declared})
    return frozenset(declared) if isinstance(declared, list) else None


def _behind(option: Shape, key: Key) -> tuple[Key, Shape] | None:
    kinds = _own_kinds(option)
    if kinds is None:
        return key, option.sub(True)
    if "array" in kinds and isinstance(key, int):
        item = _item(option, key)
        return None if item is None else (key, item)
    return _property(option, str(key)) if "object" in kinds else None


def _property(option: Shape, name: str) -> tuple[Key, Shape] | None:
    properties = option.keyword("properties", {})
    json_key = option.keyword(NAMES, {}).get(name, name)
    if json_key in properties:
        return json_key, option.sub(properties[json_key])
    # A model that says nothing of further fields drops them; only an object without fields of its own is open.
    others = option.keyword("additionalProperties", not properties)
    return None if others is False else (name, option.sub(others))


def _item(option: Shape, index: int) -> Shape | None:
    first = option.keyword("prefixItems", [])
    longest = option.keyword("maxItems", None)
    if longest is not None and not -longest <= index < longest:
        return None
    if 0 <= index < len(first) or (index < 0 and first and longest == len(first)):
        return option.sub(first[index])
    if index < 0 and first:
        return option.sub(True)
    others = option.keyword("items", True)
    return None if others is False else option.sub(others)


def _elements(option: Shape) -> list[Shape]:
    kinds = _own_kinds(option)
    if kinds is None:
        return [option.sub(True)]
    if "array" not in kinds:
        return []
    first = option.keyword("prefixItems", [])
    others = option.keyword("items", not first)
    return [option.sub(schema) for schema in (first if others is False else [*first, others])]
