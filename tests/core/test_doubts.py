"""Values that may turn out not to be of the type that is declared where they go: checked when they are there."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from hopline.shape import Shape
from hopline_engine.core.decision import Limits
from hopline_engine.core.doubts import Part, is_subtype
from hopline_engine.core.live import LiveTask
from hopline_engine.core.model import Digest, RunState, StepState
from hopline_engine.core.plan import Plan
from hopline_engine.core.planning import build_plan
from hopline_engine.scheduler.inputs import misfit
from tests.core.worlds import World, branch, definition, guard, loop_step, op, ref, step

NUMBER = {"type": "integer"}
PERHAPS = {"anyOf": [NUMBER, {"type": "null"}]}
CHECKED = Limits(misfit=misfit)


def typed(node: dict[str, Any], result: dict[str, Any]) -> dict[str, Any]:
    return node | {"result": result}


def declared(
    name: str,
    nodes: list[dict[str, Any]],
    result: Any,
    *,
    takes: dict[str, Any] | None = None,
    gives: dict[str, Any] | None = None,
    children: tuple[Plan, ...] = (),
) -> Plan:
    """Return the plan of a workflow with types of its parameters and its result."""
    parameters = {"type": "object", "properties": takes or {}, "required": sorted(takes or ())}
    body = definition(name, nodes, result) | {"parameters": parameters, "result_schema": gives or {}}
    return build_plan(body, Digest(name), {child.digest: child for child in children})


def world_of(*plans: Plan, gives: bytes = b'"text"') -> World:
    def execute(task: LiveTask, _: dict[str, Any]) -> bytes:
        return gives if task.node.id == "s" else b"1"

    return World({plan.name: plan for plan in plans}, execute, limits=CHECKED)


CHILD = declared("child", [step("inner", {"n": ref("$input", "n")})], ref("inner"), takes={"n": NUMBER})


def calling(kind: dict[str, Any], **more: Any) -> dict[str, Any]:
    return step("call", kind, workflow=("child", "child"), **more)


@pytest.mark.parametrize("result", [{}, PERHAPS, {"type": ["integer", "string"]}, {"type": "number"}])
def test_input_of_a_sub_workflow_that_may_not_fit_is_checked_and_fails_the_step(result: dict[str, Any]) -> None:
    above = declared("w", [typed(step("s"), result), calling({"n": ref("s")})], ref("call"), children=(CHILD,))
    assert above.doubts.inputs == {"call"}
    world = world_of(CHILD, above)
    run = world.start("w")
    world.finish()
    error = world.error(run)
    assert (error["step"], error["type"]) == ("call", "InvalidValue")
    assert error["message"] == (
        "the input for workflow child is not of the type that it declares: ['n']: 'text' is not of type 'integer'"
    )
    assert len(world.rows.runs) == 1, "the sub-workflow did not begin"
    fitting = world_of(CHILD, above, gives=b"7")
    run = fitting.start("w")
    fitting.finish()
    assert fitting.state(run) is RunState.SUCCEEDED


def test_element_of_a_map_that_does_not_fit_fails_alone() -> None:
    call = calling({"n": ref("s")}, over="n") | {"settled": True}
    above = declared("w", [typed(step("s"), {"type": "array"}), call], ref("call"), children=(CHILD,))
    world = world_of(CHILD, above, gives=b'[1,"two",3]')
    run = world.start("w")
    world.finish()
    one, two, three = world.result(run)
    assert (one, three) == ({"ok": 1}, {"ok": 1})
    assert two["err"]["message"].endswith("['n']: 'two' is not of type 'integer'")
    assert world.step_state(run, "call[1]") is StepState.FAILED


def test_lap_of_a_loop_is_given_what_its_workflow_takes() -> None:
    body = declared("lap", [step("s", {"x": ref("$input", "x")})], ref("s"), takes={"x": NUMBER})
    repeated = loop_step("l", 0, until=5, workflow=("lap", "lap"))
    above = declared("w", [repeated], ref("l"), children=(body,))
    assert above.doubts.inputs == {"l"}
    world = world_of(body, above, gives=b"2.5")
    run = world.start("w")
    world.finish()
    assert world.error(run)["step"] == "l"
    assert "['x']: 2.5 is not of type 'integer'" in world.error(run)["message"]


def test_result_of_a_workflow_that_may_not_fit_is_checked_at_its_end() -> None:
    plan = declared("w", [typed(step("s"), PERHAPS)], ref("s"), gives=NUMBER)
    world = world_of(plan, gives=b"null")
    run = world.start("w")
    world.finish()
    assert world.state(run) is RunState.FAILED
    error = world.error(run)
    assert (error["step"], error["type"]) == ("result", "InvalidValue")
    assert error["message"] == (
        "the result of workflow w is not of the type that it declares: None is not of type 'integer'"
    )


def test_sub_workflow_whose_result_does_not_fit_fails_its_step() -> None:
    child = declared("child", [step("s")], ref("s"), gives=NUMBER)
    above = declared("w", [step("call", workflow=("child", "child"))], ref("call"), children=(child,))
    world = world_of(child, above)
    run = world.start("w")
    world.finish()
    assert world.error(run)["step"] == "call"
    assert "the result of workflow child is not of the type that it declares" in world.error(run)["message"]


def test_what_is_certain_is_not_looked_at() -> None:
    def never(plan: Plan, part: Part, value: bytes) -> str | None:
        raise AssertionError(f"{part} of {plan.name} was looked at: {value!r}")

    number = typed(step("s"), NUMBER)
    chosen = branch(
        "b",
        ([guard(op(">", ref("s"), 1))], ref("s")),
        ([guard(op(">", ref("s"), 1), expected=False)], 3),
    )
    call = typed(calling({"n": ref("s")}), NUMBER)
    elements = typed(calling({"n": ref("many")}, over="n") | {"id": "calls"}, NUMBER)
    many = typed(step("many"), {"type": "array", "items": NUMBER})
    gives = {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "array", "items": NUMBER}]}}
    result = [ref("b"), ref("call"), ref("calls")]
    above = declared("w", [number, chosen, call, many, elements], result, gives=gives, children=(CHILD,))
    assert above.doubts == (frozenset(), None)
    world = World(
        {"w": above, "child": CHILD},
        lambda task, _: b"[1,2]" if task.node.id == "many" else b"1",
        limits=Limits(misfit=never),
    )
    run = world.start("w")
    world.finish()
    assert world.result(run) == [3, 1, [1, 1]]


# --- subtypes -------------------------------------------------------------------------------------------------------

_SCALARS: list[dict[str, Any]] = [
    {"type": "integer"},
    {"type": "number"},
    {"type": "string"},
    {"type": "null"},
    {"type": "integer", "minimum": 1},
    {"enum": [1, "a"]},
    {"const": "a"},
    {},
]
_NAMES = st.sampled_from(["a", "b"])


def _compound(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    objects = st.builds(
        lambda properties, required, others: {
            "type": "object",
            "properties": properties,
            "required": sorted(required & properties.keys()),
            **({} if others is None else {"additionalProperties": others}),
        },
        st.dictionaries(_NAMES, inner, max_size=2),
        st.sets(_NAMES),
        st.one_of(st.none(), st.just(False), inner),
    )
    arrays = st.builds(lambda items: {"type": "array", "items": items}, inner)
    return st.one_of(
        objects, arrays, st.builds(lambda any_of: {"anyOf": any_of}, st.lists(inner, min_size=1, max_size=2))
    )


SCHEMAS = st.recursive(st.sampled_from(_SCALARS), _compound, max_leaves=4)
VALUES = st.recursive(
    st.sampled_from([0, 1, 2.5, "a", "b", None]),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(_NAMES, inner, max_size=2)),
    max_leaves=4,
)


def is_valid(schema: dict[str, Any], value: Any) -> bool:
    return bool(Draft202012Validator(schema).is_valid(value))


@settings(max_examples=300)
@given(SCHEMAS, SCHEMAS, st.lists(VALUES, min_size=10, max_size=20))
def test_value_of_a_subtype_is_one_of_the_type(have: dict[str, Any], want: dict[str, Any], values: list[Any]) -> None:
    if is_subtype(Shape.of(have), Shape.of(want)):
        assert [value for value in values if is_valid(have, value) and not is_valid(want, value)] == []


@given(SCHEMAS, SCHEMAS)
def test_type_is_a_subtype_of_itself_and_of_a_union_with_it(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert is_subtype(Shape.of(one), Shape.of(dict(one)))
    assert is_subtype(Shape.of(one), Shape.of({"anyOf": [other, one]}))


def test_recursive_types_are_compared_and_come_to_an_end() -> None:
    def tree(leaf: dict[str, Any]) -> dict[str, Any]:
        branch = {"type": "array", "items": {"$ref": "#/$defs/Tree"}}
        return {"$ref": "#/$defs/Tree", "$defs": {"Tree": {"anyOf": [leaf, branch]}}}

    assert is_subtype(Shape.of(tree(NUMBER)), Shape.of(tree({"type": "number"})))
    assert not is_subtype(Shape.of(tree({"type": "number"})), Shape.of(tree(NUMBER)))
