"""Arguments of a run as they are typed: ``name=value``, read by the workflow's parameter schema.

``name=value``       text for a text parameter, otherwise JSON, otherwise text
``name=@file.json``  the same, read from a file
``name:=json``       JSON, whatever the parameter is
Whether a value has the right type is left to the server, which checks it for every caller.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hopline_cli.errors import UsageError
from hopline_cli.text import did_you_mean, json_text

Schema = Mapping[str, Any]

_ASSIGNMENT = re.compile(r"([^\W\d]\w*)(:=|=)(.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One ``name=value`` as typed, files already read."""

    name: str
    text: str
    forced_json: bool


def parse(words: Sequence[str]) -> list[Assignment]:
    """Return the assignments in *words*.

    Raises:
        UsageError: a word is no assignment, a name comes twice, or a file cannot be read.
    """
    assignments: dict[str, Assignment] = {}
    for word in words:
        assignment = _assignment(word)
        if assignment.name in assignments:
            raise UsageError(f"{assignment.name} is given twice")
        assignments[assignment.name] = assignment
    return list(assignments.values())


def _assignment(word: str) -> Assignment:
    match = _ASSIGNMENT.fullmatch(word)
    if match is None:
        raise UsageError(f"{word!r} is not of the form name=value", hint="inputs are written like: folder=data top=5")
    name, sign, text = match.groups()
    if sign == "=" and text.startswith("@"):
        text = _content(name, Path(text[1:]))
    return Assignment(name=name, text=text, forced_json=sign == ":=")


def _content(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(
            f"cannot read {path} for {name}: {reason}", hint=f"for text that begins with @ write: {name}:='\"@...\"'"
        ) from None


def bind(assignments: Sequence[Assignment], schema: Schema) -> dict[str, Any]:
    """Return the input object of a run.

    Raises:
        UsageError: a parameter is unknown or missing, or a value is not the JSON it must be; the hint lists the
            parameters.
    """
    properties: Mapping[str, Schema] = schema.get("properties", {})
    for assignment in assignments:
        if assignment.name not in properties:
            near = did_you_mean(assignment.name, properties)
            raise _wrong(f"there is no parameter {assignment.name}" + (f"; {near}" if near else ""), schema)
    given = {assignment.name: _value(assignment, properties[assignment.name], schema) for assignment in assignments}
    missing = [name for name in schema.get("required", []) if name not in given]
    if missing:
        raise _wrong(f"missing {'parameter' if len(missing) == 1 else 'parameters'} {', '.join(missing)}", schema)
    return given


def bind_some(assignments: Sequence[Assignment], schema: Schema) -> dict[str, Any]:
    """Return the members of an input object that are given; the server has the others.

    Raises:
        UsageError: as ``bind``, but for parameters that are missing.
    """
    return bind(assignments, {**schema, "required": []})


def _wrong(message: str, schema: Schema) -> UsageError:
    return UsageError(message, code="input", hint=parameter_list(schema))


def _value(assignment: Assignment, parameter: Schema, schema: Schema) -> Any:
    if _takes_text(parameter, schema) and not assignment.forced_json:
        return assignment.text
    try:
        return json.loads(assignment.text, parse_constant=_refuse_constant)
    except ValueError as error:
        if assignment.forced_json:
            raise _wrong(f"{assignment.name} is not valid JSON: {error}", schema) from None
        return assignment.text


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _takes_text(parameter: Schema, schema: Schema) -> bool:
    """Return whether every value the parameter takes, besides null, is text."""
    return _types(parameter, schema) - {"null"} == {"string"}


def _types(parameter: Schema, schema: Schema) -> set[str]:
    parameter = _resolved(parameter, schema)
    for union in ("anyOf", "oneOf"):
        if union in parameter:
            return set().union(*(_types(choice, schema) for choice in parameter[union]))
    if "enum" in parameter or "const" in parameter:
        values = parameter.get("enum", [parameter.get("const")])
        return {"string" if isinstance(value, str) else "null" if value is None else "other" for value in values}
    kind = parameter.get("type", "any")
    return set(kind) if isinstance(kind, list) else {kind}


def _resolved(parameter: Schema, schema: Schema) -> Schema:
    reference = parameter.get("$ref", "")
    if not reference.startswith("#/$defs/"):
        return parameter
    found: Schema = schema.get("$defs", {}).get(reference.removeprefix("#/$defs/"), {})
    return found


def parameter_list(schema: Schema) -> str:
    """Return the parameters on one line, the needed ones first.

    >>> parameter_list({"properties": {"folder": {"type": "string"}, "top": {"type": "integer", "default": 5}},
    ...                 "required": ["folder"]})
    'parameters: folder (text, needed), top (integer, default 5)'
    """
    properties: Mapping[str, Schema] = schema.get("properties", {})
    required = schema.get("required", [])
    if not properties:
        return "it takes no parameters"
    names = sorted(properties, key=lambda name: name not in required)
    told = [f"{name} ({_told(name, properties[name], schema, required)})" for name in names]
    return f"parameters: {', '.join(told)}"


def _told(name: str, parameter: Schema, schema: Schema, required: Sequence[str]) -> str:
    kind = type_name(parameter, schema)
    if name in required:
        return f"{kind}, needed"
    return f"{kind}, default {json_text(parameter['default'], indent=None)}" if "default" in parameter else kind


def type_name(parameter: Schema, schema: Schema) -> str:
    """Return what a parameter takes, in a word or two.

    >>> type_name({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]}, {})
    'list of text or null'
    """
    parameter = _resolved(parameter, schema)
    for union in ("anyOf", "oneOf"):
        if union in parameter:
            return " or ".join(type_name(choice, schema) for choice in parameter[union])
    if "enum" in parameter:
        return " or ".join(json_text(value, indent=None) for value in parameter["enum"])
    if parameter.get("type") == "array":
        return f"list of {type_name(parameter.get('items', {}), schema)}"
    if parameter.get("type") == "string":
        return str(parameter.get("format", "text"))
    kind = parameter.get("type", "any JSON")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)
