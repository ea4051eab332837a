"""Where a value may turn out not to be of the type that is declared for it, and so is checked when it is there.

What enters the engine is checked against the type of who it comes from. Whether it also fits where it goes is mostly
known from the two types alone; the compiler refuses what cannot fit. What is left is a doubt, as with a result that may
be null where no null is expected: workers check the arguments of their steps, and the engine, as said here, the inputs
of workflows and their results. Where nothing is in doubt, nothing is done.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from hopline.shape import NAMES, Shape
from hopline_engine.core.binding import INPUT, BindingError
from hopline_engine.core.definition import DefinitionSpec, NodeSpec

Part = Literal["input", "result"]

_TEXT: Final = Shape({"type": "string"})
_NULL: Final = Shape({"type": "null"})
_SAID_ELSEWHERE: Final = frozenset({"type", "properties", "required", "items", "additionalProperties"})
_NOTES: Final = frozenset({"default", "title", "description", "examples", "$defs", NAMES})
_Seen = frozenset[tuple[int, int]]


class MisfitError(BindingError):
    """A value is not of the type that is declared where it goes."""


class Doubts(NamedTuple):
    """What of a workflow has to be checked as it runs."""

    inputs: frozenset[str]
    """The steps that call workflows whose inputs may not fit."""
    result: Mapping[str, Any] | None
    """The schema of the result, if that may not fit."""


NO_DOUBTS: Final = Doubts(frozenset(), None)


def doubts_of(spec: DefinitionSpec, children: Mapping[str, Mapping[str, Any]]) -> Doubts:
    """Return what is in doubt of a definition; *children* are the parameters of the workflows it calls, by digest."""
    known = _Known(spec)
    inputs = frozenset(
        node.id
        for node in spec.nodes
        if node.workflow is not None and not known.surely_calls(node, children[node.workflow.digest])
    )
    is_sure = known.surely(spec.result, Shape.of(spec.result_schema))
    return Doubts(inputs, None if is_sure else spec.result_schema)


class _Known:
    """What the types in a definition say of its values."""

    def __init__(self, spec: DefinitionSpec) -> None:
        self._nodes = {node.id: node for node in spec.nodes}
        self._input = Shape.of(spec.parameters)

    def surely_calls(self, node: NodeSpec, parameters: Mapping[str, Any]) -> bool:
        """Return whether all that a step gives to a workflow is what that takes."""
        types: Mapping[str, Any] = parameters.get("properties", {})
        repeated = None if node.loop is None else node.loop.over
        for name, value in node.inputs.items():
            want = Shape(types.get(name, True), parameters.get("$defs", {}))
            if name == node.over:
                is_sure = self._surely_elements(value, want)
            else:
                is_sure = self.surely(value, want)
                is_sure = is_sure and (name != repeated or is_subtype(Shape.of(node.result), want))
            if not is_sure:
                return False
        return True

    def surely(self, value: Any, want: Shape) -> bool:
        """Return whether an expression has a value of a type, whatever happens."""
        if not want.schema or want.schema is True or not _has_reference(value):
            return True  # what stands in the definition was checked by the compiler
        match value:
            case {"$ref": str(source), "path": list(path), **rest}:
                if rest.get("format"):
                    return is_subtype(_TEXT, want)
                node = self._nodes.get(source)
                if node is not None and node.arms and not path:
                    return self._surely_chosen(node, want)
                shape = self._shape(source, path)
                return shape is not None and is_subtype(shape, want)
            case {"$text": _}:
                return is_subtype(_TEXT, want)
            case dict():
                return self._surely_object(value, want)
            case list():
                element = want.element()
                is_list = element is not None and want.kinds() == frozenset({"array"})
                return is_list and element is not None and all(self.surely(member, element) for member in value)
        return False

    def _surely_object(self, members: dict[str, Any], want: Shape) -> bool:
        options = list(want.options())
        if len(options) != 1 or options[0].kinds() != frozenset({"object"}):
            return False
        places = {key: options[0].at(key) for key in members}
        return set(options[0].keyword("required", ())) <= members.keys() and all(
            place is not None and self.surely(members[key], place[1]) for key, place in places.items()
        )

    def _surely_elements(self, items: Any, want: Shape) -> bool:
        if not want.schema or want.schema is True or not _has_reference(items):
            return True
        match items:
            case {"$ref": str(source), "path": list(path)}:
                shape = self._shape(source, path)
                element = shape.element() if shape is not None else None
                return element is not None and is_subtype(element, want)
            case list():
                return all(self.surely(member, want) for member in items)
        return False

    def _surely_chosen(self, node: NodeSpec, want: Shape) -> bool:
        """Return whether every arm of a choice fits, and null where it may be that no arm is chosen."""
        covers = node.kind != "branch"
        if len(node.arms) == 2 and all(arm.guards for arm in node.arms):
            first, second = (arm.guards[-1] for arm in node.arms)
            covers = covers or (first.condition == second.condition and first.expected != second.expected)
        return (covers or is_subtype(_NULL, want)) and all(self.surely(arm.value, want) for arm in node.arms)

    def _shape(self, source: str, path: list[Any]) -> Shape | None:
        """Return the type of a part of the input or of a result; ``None`` if nothing is known of it."""
        if source == INPUT:
            shape = self._input
        elif (node := self._nodes.get(source)) is None or node.arms:
            return None
        else:
            shape = Shape.of(node.result)
            if node.over is not None:
                shape = (shape.settled() if node.settled else shape).listed()
        for key in path:
            place = shape.at(key)
            if place is None:
                return None
            shape = place[1]
        return shape


def _has_reference(value: Any) -> bool:
    match value:
        case {"$literal": _}:
            return False
        case dict():
            return "$ref" in value or "$text" in value or any(map(_has_reference, value.values()))
        case list():
            return any(map(_has_reference, value))
    return False


def is_subtype(have: Shape, want: Shape, seen: _Seen = frozenset()) -> bool:
    """Return whether every value of one type is surely one of another.

    >>> is_subtype(Shape({"type": "integer"}), Shape({"anyOf": [{"type": "number"}, {"type": "null"}]}))
    True
    >>> is_subtype(Shape({"anyOf": [{"type": "integer"}, {"type": "null"}]}), Shape({"type": "integer"}))
    False
    """
    pair = (id(have.schema), id(want.schema))
    if pair in seen or (have.schema == want.schema and have.defs == want.defs):  # recursive types come round again
        return True
    wanted = list(want.options())
    return all(any(_is_option(one, other, seen | {pair}) for other in wanted) for one in have.options())


def _is_option(have: Shape, want: Shape, seen: _Seen) -> bool:
    schema = want.schema
    if not isinstance(schema, Mapping) or not schema.keys() - _NOTES:
        return schema is not False
    if not isinstance(have.schema, Mapping) or not _has_type(have, want):
        return False
    for keyword, said in schema.items():
        if keyword in _NOTES or keyword in _SAID_ELSEWHERE:
            continue
        if isinstance(said, Mapping) or keyword not in have.schema or have.schema[keyword] != said:
            return False
        if isinstance(said, list) and any(isinstance(member, Mapping) for member in said):
            return False
    if want.kinds() == frozenset({"object"}):
        return _has_fields(have, want, seen)
    items = want.keyword("items", None)
    return items is None or is_subtype(have.sub(have.keyword("items", True)), want.sub(items), seen)


def _has_type(have: Shape, want: Shape) -> bool:
    theirs, ours = want.kinds(), have.kinds()
    return theirs is None or (ours is not None and ours <= (theirs | {"integer"} if "number" in theirs else theirs))


def _has_fields(have: Shape, want: Shape, seen: _Seen) -> bool:
    ours, theirs = have.keyword("properties", {}), want.keyword("properties", {})
    others, wanted_others = have.keyword("additionalProperties", True), want.keyword("additionalProperties", True)
    is_closed = others is False
    if not set(want.keyword("required", ())) <= set(have.keyword("required", ())):
        return False
    if not is_closed and not theirs.keys() <= ours.keys():  # a field that is not declared may be there all the same
        return False
    if wanted_others is False and not (is_closed and ours.keys() <= theirs.keys()):
        return False
    if isinstance(wanted_others, Mapping) and not (
        all(is_subtype(have.sub(ours[name]), want.sub(wanted_others), seen) for name in ours.keys() - theirs.keys())
        and (is_closed or is_subtype(have.sub(others), want.sub(wanted_others), seen))
    ):
        return False
    return all(is_subtype(have.sub(ours[name]), want.sub(theirs[name]), seen) for name in theirs.keys() & ours.keys())
