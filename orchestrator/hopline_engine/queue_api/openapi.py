"""The OpenAPI document of the REST front, made of the same tables that requests are routed and read by."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final, assert_never

from hopline_engine.core.cloud.names import LOCATION_ID, PROJECT_ID, QUEUE_ID, TASK_ID
from hopline_engine.queue_api.methods import METHODS
from hopline_engine.queue_api.routes import RULES, Rule
from hopline_engine.queue_api.shapes import SHAPES, EnumOf, Kind, Many, Of, Optional, Scalar, Shape, Version
from hopline_engine.queue_api.wire import camel

Json = dict[str, Any]

DOCUMENT_NAME: Final = "openapi.json"

_NAMES: Final[Mapping[str, str]] = {
    "project": PROJECT_ID,
    "location": LOCATION_ID,
    "queue": QUEUE_ID,
    "task": TASK_ID,
    "operation": "[0-9a-f]{32}",
}
_SCALARS: Final[Mapping[Scalar, Json]] = {
    Scalar.STRING: {"type": "string"},
    Scalar.BOOL: {"type": "boolean"},
    Scalar.INT32: {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1},
    Scalar.INT64: {"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"},
    Scalar.DOUBLE: {"type": "number", "format": "double"},
    Scalar.BYTES: {"type": "string", "format": "byte"},
    Scalar.DURATION: {"type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$"},
    Scalar.TIMESTAMP: {"type": "string", "format": "date-time"},
    Scalar.MASK: {"type": "string"},
    Scalar.HEADERS: {"type": "object", "additionalProperties": {"type": "string"}},
    Scalar.JSON: {},
}
_ERROR: Final[Json] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "status"],
            "properties": {
                "code": {"type": "integer", "description": "The HTTP status."},
                "message": {"type": "string"},
                "status": {"type": "string", "description": "The canonical code, as NOT_FOUND."},
                "details": {"type": "array", "items": {"type": "object"}},
            },
        }
    },
}
_ABOUT: Final = (
    "Requests may write names of fields in snake case too, values of enums as numbers, and null for what is not said; "
    "the standard query parameters of Google's APIs are taken and passed over."
)


@cache
def document(version: Version) -> Json:
    """Return the document of an API version."""
    rules = [rule for rule in RULES if version in rule.versions]
    paths: dict[str, Json] = {}
    for rule in rules:
        paths.setdefault(f"/{version}/{rule.shown}", {})[rule.verb.lower()] = _operation(version, rule)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Hopline's queues, as Cloud Tasks has them", "version": version.value, "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": {**_schemas(version, rules), "Error": _ERROR},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _operation(version: Version, rule: Rule) -> Json:
    method = METHODS[rule.method]
    shape = SHAPES[version][method.request]
    operation: Json = {
        "operationId": rule.method if "{task_id}" not in rule.template else f"{rule.method}WithId",
        "parameters": [*_in_path(rule), *_in_query(rule, shape)],
        "responses": {
            "200": {"description": "Done", **_content(_reference(method.answer))},
            "default": {"description": "What went wrong", **_content(_reference("Error"))},
        },
    }
    if rule.body is not None:
        operation["requestBody"] = {**_content(_body(rule, shape)), "required": rule.body not in ("*", "body")}
    return operation


def _in_path(rule: Rule) -> Iterator[Json]:
    for name, pattern in _NAMES.items():
        if f"{{{name}}}" in rule.shown:
            schema = {"type": "string", "pattern": f"^{pattern}$"}
            yield {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(rule: Rule, shape: Shape) -> Iterator[Json]:
    if rule.body == "*":
        return
    said = {*_bound(rule), rule.body}
    for name, kind in shape.items():
        if name not in said:
            yield {"name": camel(name), "in": "query", "schema": _schema(kind)}


def _body(rule: Rule, shape: Shape) -> Json:
    """Return the schema of a body; what the path says need not be in it."""
    if rule.body != "*":
        return _schema(shape[str(rule.body)])
    return _object({name: kind for name, kind in shape.items() if name not in _bound(rule)})


def _bound(rule: Rule) -> set[str]:
    return {field.partition(".")[0] for field in rule.fields}


def _schemas(version: Version, rules: list[Rule]) -> dict[str, Json]:
    """Return the messages that requests and answers are made of."""
    shapes = SHAPES[version]
    wanted = [METHODS[rule.method].answer for rule in rules]
    wanted += [message for rule in rules for message in _parts(shapes[METHODS[rule.method].request])]
    found: dict[str, Json] = {}
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = _object(shapes[name])
            wanted += _parts(shapes[name])
    return dict(sorted(found.items()))


def _parts(shape: Shape) -> Iterator[str]:
    for kind in shape.values():
        inner = kind.of if isinstance(kind, Many) else kind
        if isinstance(inner, Of):
            yield inner.message


def _object(shape: Shape) -> Json:
    properties = {camel(name): _schema(kind) for name, kind in shape.items()}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _schema(kind: Kind) -> Json:
    match kind:
        case Of(message):
            return _reference(message)
        case Many(of):
            return {"type": "array", "items": _schema(of)}
        case EnumOf(names=names):
            return {"type": "string", "enum": list(names)}
        case Optional(of):
            return _schema(of)
        case Scalar():
            return _SCALARS[kind]
        case _:
            assert_never(kind)


def _reference(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _content(schema: Json) -> Json:
    return {"content": {"application/json": {"schema": schema}}}
