"""JSON schemas in one spelling: without what only documents, and with names that no module or file enters.

Docstrings, titles, examples and the place of a class can change without any run behaving otherwise, so they must not
change the version of a workflow.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from hopline.definition import Json
from hopline.shape import NAMES

_DEFINITIONS = "#/$defs/"
_NUMBER = re.compile(r"__\d+$")  # of classes that even their modules do not tell apart
_DOCUMENTATION = frozenset({"title", "description", "examples", "discriminator"})
_MAPS_OF_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "dependentSchemas"})
_LISTS_OF_SCHEMAS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_SCHEMAS = frozenset(
    {"items", "additionalProperties", "contains", "propertyNames", "not", "if", "then", "else"}
    | {"unevaluatedItems", "unevaluatedProperties"}
)


def note_names(schema: Json, plain: Json) -> None:
    """Note in each object of *schema* whose keys are aliases how *plain*, the same by field names, calls the fields."""
    pairs = [(schema, plain)] + [(schema["$defs"][name], plain["$defs"][name]) for name in plain.get("$defs", ())]
    for aliased, named in pairs:
        names = dict(zip(named.get("properties", ()), aliased.get("properties", ()), strict=True))
        if any(name != key for name, key in names.items()):
            aliased[NAMES] = names


def tidied(schema: Json, *, keep_names: bool) -> Json:
    """Return the schema in its one spelling; *keep_names* keeps what ``note_names`` noted."""
    bare = _without(schema, _DOCUMENTATION if keep_names else _DOCUMENTATION | {NAMES})
    renamed = _short_names(bare)
    if not renamed:
        return bare
    definitions = bare.pop("$defs")
    tidy = redirected(bare, renamed)
    tidy["$defs"] = {new: redirected(definitions[old], renamed) for old, new in renamed.items()}
    return tidy


def _without(schema: Any, keywords: Iterable[str]) -> Any:
    if not isinstance(schema, dict):
        return schema
    tidy: dict[str, Any] = {}
    for keyword, value in schema.items():
        if keyword in _MAPS_OF_SCHEMAS:
            tidy[keyword] = {name: _without(member, keywords) for name, member in value.items()}
        elif keyword in _LISTS_OF_SCHEMAS:
            tidy[keyword] = [_without(member, keywords) for member in value]
        elif keyword in _SCHEMAS:
            tidy[keyword] = _without(value, keywords)
        elif keyword == "required":
            tidy[keyword] = sorted(value)
        elif keyword not in keywords:
            tidy[keyword] = value
    return tidy


def _short_names(schema: Json) -> dict[str, str]:
    """Return old and new name of every definition that *schema* leads to, in the order of a sorted walk.

    Pydantic tells classes of one name apart by their modules; the version of a workflow must not depend on those.
    """
    definitions = schema.get("$defs", {})
    names: dict[str, str] = {}
    waiting = [value for keyword, value in sorted(schema.items()) if keyword != "$defs"]
    while waiting:
        for old in _referred(waiting.pop(0)):
            if old in definitions and old not in names:
                names[old] = _free(_NUMBER.sub("", old).rpartition("__")[2] or old, names.values())
                waiting.append(definitions[old])
    return names


def _referred(schema: Any) -> Iterable[str]:
    if isinstance(schema, dict):
        target = schema.get("$ref")
        if isinstance(target, str):
            yield target.removeprefix(_DEFINITIONS)
        for _, value in sorted(schema.items()):
            yield from _referred(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _referred(value)


def _free(name: str, taken: Iterable[str]) -> str:
    names, number, free = set(taken), 1, name
    while free in names:
        number += 1
        free = f"{name}_{number}"
    return free


def redirected(schema: Any, names: Mapping[str, str]) -> Any:
    """Return *schema* with its references to definitions led to their new *names*."""
    if isinstance(schema, list):
        return [redirected(value, names) for value in schema]
    if not isinstance(schema, dict):
        return schema
    moved = {key: redirected(value, names) for key, value in schema.items()}
    old = str(schema.get("$ref", "")).removeprefix(_DEFINITIONS)
    return {**moved, "$ref": _DEFINITIONS + names[old]} if old in names else moved
