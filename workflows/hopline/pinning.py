"""What a worker hands over of a graph that it traced from real values: definitions, and the values beside them.

The values that the body gave to steps are taken out of the definition and become the input of the run, by step and
parameter. Two calls that wired the same graph then share one definition, however many values there are.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hopline.definition import Definition, Expr, Node
from hopline.expressions import is_literal, literal_value
from hopline.trace import INPUT

RESULT = "$result"
_INPUT_SCHEMA = {"type": "object"}


def pinned(definition: Definition) -> dict[str, Any]:
    """Return the definitions, that of the graph itself first, and the input with which its run is to begin."""
    values: dict[str, Any] = {}
    nodes = {name: _without_values(node, values) for name, node in sorted(definition.nodes.items())}
    result = definition.result
    if is_literal(result):
        values[RESULT] = literal_value(result)
        result = _reference(RESULT)
    graph = replace(definition, nodes=nodes, result=result, parameters=_INPUT_SCHEMA)
    return {
        "definitions": [graph.to_json(), *(child.to_json() for child in definition.children.values())],
        "input": values,
    }


def _without_values(node: Node, values: dict[str, Any]) -> Node:
    taken: dict[str, Any] = {}
    inputs = _taken_out(node.inputs, taken, node.id)
    request = node.request
    if request is not None:
        whole = {name: request[name] for name in ("url", "json") if name in request}
        request = {
            **request,
            **_taken_out(whole, taken, node.id),
            **{part: _taken_out(request[part], taken, node.id, part) for part in ("params", "headers")},
        }
    if taken:
        values[node.id] = taken
    return replace(node, inputs=inputs, request=request)


def _taken_out(members: Mapping[str, Expr], taken: dict[str, Any], *path: str) -> dict[str, Expr]:
    """Return *members* with references for those that have their value already, which go to *taken*."""
    left: dict[str, Expr] = {}
    for name, expr in members.items():
        if is_literal(expr):
            (taken.setdefault(path[1], {}) if path[1:] else taken)[name] = literal_value(expr)
            left[name] = _reference(*path, name)
        else:
            left[name] = expr
    return left


def _reference(*path: str) -> Expr:
    return {"$ref": INPUT, "path": list(path)}
