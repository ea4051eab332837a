"""A definition becomes a plan that can be run, or a PlanError that says what is wrong with it; never anything else."""

import copy
import json
import time
from typing import Any

import msgspec
import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hopline_engine.core.binding import BindingError
from hopline_engine.core.live import LiveTask, RunScope, item_of
from hopline_engine.core.model import Digest, TaskState
from hopline_engine.core.plan import HTTP_ROUTE, Plan, PlanError, Route
from hopline_engine.core.planning import build_plan, child_digests
from hopline_engine.core.retry import Failure
from tests.core.worlds import ACCEPT, Outcome, World, definition, http_step, plan, ref, step

CHILD = plan([step("inner", {"v": ref("$input", "x")})], ref("inner"), name="child")


def rich_definition() -> dict[str, Any]:
    """Return a definition in which every kind of thing occurs."""
    url = {"$text": ["http://shop.example/orders/", ref("list", "id")]}
    nodes = [
        step("list", {"folder": ref("$input", "folder")}, attempts=3, deadline=60.0, queue="erp"),
        step("each", {"x": ref("list", "files"), "n": 1}, over="x", max_parallel=2),
        step("next", {"x": ref("each"), "note": {"$text": ["of ", ref("list")]}}, over="x"),
        step("sub", {"x": ref("next")}, over="x", workflow=("child", "child")),
        http_step("get", url, params={"q": [1, ref("each", 0)]}, headers={"X-Key": {"$secret": "KEY"}}),
        http_step("post", url, method="POST", json={"a": ref("get"), "b": {"$literal": {"$ref": 1}}}, has_json=True),
        step("last", {}, after=["post", "sub"]),
    ]
    body = definition("rich", nodes, {"out": [ref("next"), {"$literal": {"$x": 1}}]})
    body["nodes"][0]["policy"]["retry"]["on"] = [{"status": 429}, {"range": [500, 600]}, {"error": "TimeoutError"}]
    queue = {"name": "erp", "max_dispatches_per_second": 2.5, "max_burst_size": 1, "max_concurrent_dispatches": None}
    body["queues"] = [queue]
    return body


def build(body: Any) -> Plan:
    return build_plan(body, Digest("d"), {"child": CHILD})


# --- malformed definitions ------------------------------------------------------------------------------------------

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "$input", "$item", "list", "each", "python", "http", "workflow", "x", "none"]),
    st.text(max_size=5),
)
keys = st.sampled_from(["$ref", "$text", "$secret", "$literal", "path", "id", "x", "range", "status"])
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the path of every value inside a value, its own first."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, member in inside for place in places(member, (*path, key)))]


RICH = rich_definition()
PLACES = places(RICH)[1:]


@st.composite
def broken_definitions(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the rich definition with some values replaced, dropped or doubled."""
    body = copy.deepcopy(RICH)
    for place in draw(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3)):
        holder = body
        try:
            for key in place[:-1]:
                holder = holder[key]  # type: ignore[index]
            match draw(st.sampled_from(["replace", "replace", "drop", "double", "rename"])):
                case "replace":
                    holder[place[-1]] = draw(values)  # type: ignore[index]
                case "drop":
                    del holder[place[-1]]  # type: ignore[arg-type]
                case "double":
                    holder.append(copy.deepcopy(holder[place[-1]]))  # type: ignore[attr-defined, index]
                case "rename":
                    holder[draw(keys)] = holder.pop(place[-1])  # type: ignore[arg-type]
        except (KeyError, IndexError, TypeError, AttributeError):
            continue  # an earlier change took the place away, or it cannot be changed like this
    read: dict[str, Any] = json.loads(json.dumps(body))  # as every definition is: keys are texts
    return read


def run_once(task: LiveTask, arguments: dict[str, Any]) -> Outcome:
    """Make the request of a step, and answer with something that has files to map over."""
    if task.node.request is not None:
        scope = RunScope(task.run, item_of(task.run, task.node, task.item), {"KEY": "k"})
        try:
            task.node.request.bind(scope)
        except BindingError as error:
            return Failure("BindingError", str(error), final=True)
    if task.state is TaskState.LEASED and task.item == 1:
        return ACCEPT
    return msgspec.json.encode({"id": 1, "files": [{"id": 5}, "b", None], **arguments})


@settings(max_examples=250)
@given(broken_definitions())
def test_malformed_definition_is_refused_or_can_be_run(body: dict[str, Any]) -> None:
    try:
        built = build(body)
    except PlanError as error:
        assert str(error)
        return
    world = World({built.name: built, "child": CHILD}, run_once)
    run = world.start(built.name, b'{"folder":"docs"}')
    for _ in range(60):
        world.turn()
    assert run.plan is built


@given(values)
def test_what_is_no_definition_at_all_is_refused(body: Any) -> None:
    with pytest.raises(PlanError):
        build(body)


def changed(*changes: tuple[tuple[str | int, ...], Any]) -> dict[str, Any]:
    """Return the rich definition with other values at some places."""
    body: Any = copy.deepcopy(RICH)
    for place, value in changes:
        holder = body
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = value
    return body  # type: ignore[no-any-return]


def node_at(name: str, *place: str | int) -> tuple[str | int, ...]:
    return ("nodes", [node["id"] for node in RICH["nodes"]].index(name), *place)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("format",), 2, "format 2 is not 1; upgrade the server"),
        (("result",), ref("nowhere"), "the result needs 'nowhere', which does not exist"),
        (("result",), ref("$item"), "the result needs '$item'"),
        (node_at("last", "inputs"), {"a": ref("nowhere")}, "step 'last' needs 'nowhere', which does not exist"),
        (node_at("last", "after"), ["nowhere"], "step 'last' needs 'nowhere', which does not exist"),
        (node_at("last", "inputs"), {"a": ref("$item")}, "step 'last' refers to an item where there is none"),
        (node_at("each", "inputs", "x"), ref("$item"), "step 'each' refers to an item"),
        (node_at("each", "over"), "missing", "missing"),
        (node_at("sub", "workflow", "digest"), "other", "calls workflow 'child', which is not registered"),
        (node_at("last", "kind"), "sql", "sql"),
        (node_at("last", "kind"), "workflow", "workflow"),
        (node_at("last", "kind"), "http", "request"),
        (node_at("last", "id"), "list", "two steps have the same id"),
        (node_at("last", "id"), "$input", "id"),
        (node_at("last", "id"), "", "id"),
        (node_at("last", "policy", "max_parallel"), 0, "max_parallel"),
        (node_at("last", "policy", "max_parallel"), -1, "max_parallel"),
        (node_at("last", "policy", "timeout"), 0, "timeout"),
        (node_at("last", "policy", "deadline"), -1.0, "deadline"),
        (node_at("last", "policy", "timeout"), True, "timeout"),
        (node_at("last", "policy", "queue"), "", "queue"),
        (node_at("last", "policy", "queue"), None, "queue"),
        (node_at("last", "policy", "retry", "attempts"), 0, "attempts"),
        (node_at("last", "policy", "retry", "attempts"), "3", "attempts"),
        (node_at("last", "policy", "retry", "factor"), 0.5, "factor"),
        (node_at("last", "policy", "retry", "first"), -1, "first"),
        (node_at("last", "policy", "retry", "jitter"), "some", "jitter"),
        (node_at("last", "policy", "retry", "on"), [{"stauts": 429}], "stauts"),
        (node_at("last", "policy", "retry", "on"), [{"range": [500]}], "range"),
        (node_at("last", "policy", "retry", "on"), [{"status": "429"}], "status"),
        (node_at("get", "request", "url"), 5, "URL"),
        (node_at("get", "request", "url", "$text"), "http://shop", "$text"),
        (node_at("get", "request", "url", "$text"), [{}], "text"),
        (node_at("get", "request", "method"), "GET /x", "method"),
        (node_at("get", "request", "headers"), {"X Key": "v"}, "header"),
        (node_at("get", "request", "headers"), {"X-Key\r\nHost": "v"}, "header"),
        (node_at("get", "request", "headers", "X-Key"), 5, "text"),
        (node_at("list", "inputs", "folder"), {"$ref": 5, "path": []}, "$ref"),
        (node_at("list", "inputs", "folder"), {"$ref": "$input", "path": [1.5]}, "path"),
        (node_at("list", "inputs", "folder"), {"$ref": "$input", "path": [True]}, "path"),
        (node_at("list", "inputs", "folder"), {"$ref": "$input", "path": "folder"}, "path"),
        (node_at("list", "inputs", "folder"), {"$ref": "$input", "$text": []}, "$text"),
        (node_at("list", "inputs", "folder"), {"$secret": "A", "b": 1}, "$secret"),
        (node_at("list", "inputs", "folder"), {"$now": 1}, "$now"),
        (("queues", 0, "max_dispatches_per_second"), 0, "max_dispatches_per_second"),
        (("queues", 0, "max_concurrent_dispatches"), 0, "max_concurrent_dispatches"),
        (("queues", 0, "name"), 5, "name"),
        (("queues",), [5], "queues"),
    ],
)
def test_error_says_what_is_wrong(place: tuple[str | int, ...], value: Any, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        build(changed((place, value)))
    assert message in str(caught.value)


def test_definition_nested_too_deep_is_refused() -> None:
    deep: Any = 1
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(PlanError):
        build(changed((("result",), deep)))


def test_unknown_members_are_passed_over() -> None:
    assert build(changed((("made_by",), "hopline 0.1"), (node_at("last", "color"), "red"))).by_id["last"].id == "last"


# --- order ----------------------------------------------------------------------------------------------------------


def test_steps_are_in_topological_order_and_then_by_name() -> None:
    built = plan([step("a", after=["c"]), step("b"), step("c", after=["d"]), step("d")])
    assert [node.id for node in built.nodes] == ["b", "d", "c", "a"]
    assert [node.index for node in built.nodes] == [0, 1, 2, 3]


@given(st.lists(st.lists(st.integers(0, 20), max_size=4), max_size=15))
def test_order_is_the_lexicographic_topological_one(waits: list[list[int]]) -> None:
    # Names that sort otherwise than the order in which the steps depend on each other.
    names = [f"s{number * 7 % 16:02}" for number in range(len(waits))]
    before = [sorted({names[each] for each in given if each < number}) for number, given in enumerate(waits)]
    built = plan([step(name, after=after) for name, after in zip(names, before, strict=True)])
    graph: nx.DiGraph[str] = nx.DiGraph(
        [(each, name) for name, after in zip(names, before, strict=True) for each in after]
    )
    graph.add_nodes_from(names)
    assert [node.id for node in built.nodes] == list(nx.lexicographical_topological_sort(graph))


def test_cycle_is_named() -> None:
    nodes = [step("a", after=["c"]), step("b", {"x": ref("a")}), step("c", {"x": ref("b")}), step("free")]
    with pytest.raises(PlanError) as caught:
        plan(nodes)
    ring = str(caught.value).removeprefix("cycle: ").split(" -> ")
    assert sorted(ring[:-1]) == ["a", "b", "c"]
    assert ring[0] == ring[-1]


def test_step_that_needs_itself_is_a_cycle() -> None:
    with pytest.raises(PlanError, match="cycle: a -> a"):
        plan([step("a", {"x": ref("a")})])


def test_cycle_through_maps_that_follow_each_other_is_named() -> None:
    nodes = [step("a", {"x": ref("b")}, over="x"), step("b", {"x": ref("a")}, over="x")]
    with pytest.raises(PlanError, match="cycle: "):
        plan(nodes)


def test_upstreams_downstreams_and_levels() -> None:
    built = plan([step("a"), step("b", {"x": ref("a"), "y": ref("a", "n")}), step("c", after=["a", "b"]), step("d")])
    by_id = {node.id: node for node in built.nodes}
    a, b, c, d = (by_id[name] for name in "abcd")
    assert (a.upstream, b.upstream, c.upstream) == ((), (a.index,), (a.index, b.index))
    assert set(a.downstream) == {b.index, c.index}
    assert [node.waits for node in (a, b, c, d)] == [0, 1, 2, 0]
    assert [node.level for node in (a, b, c, d)] == [0, 1, 2, 0]


def test_map_over_a_map_follows_its_elements() -> None:
    built = plan([step("a", {"x": [1]}, over="x"), step("b", {"x": ref("a")}, over="x")])
    a, b = built.nodes
    assert (b.stream_from, b.upstream, b.waits, b.level) == (a.index, (), 1, 1)
    assert (a.streams, a.downstream) == ((b.index,), ())


@pytest.mark.parametrize(
    "node",
    [
        step("b", {"x": ref("a")}),
        step("b", {"x": ref("a", 0)}, over="x"),
        step("b", {"x": [ref("a")]}, over="x"),
        step("b", {"x": [1], "y": ref("a")}, over="x"),
        step("b", after=["a"]),
        http_step("b", {"$text": ["http://x/", ref("a")]}),
    ],
)
def test_every_other_reference_to_a_map_waits_for_all_of_it(node: dict[str, Any]) -> None:
    a, b = plan([step("a", {"x": [1]}, over="x"), node]).nodes
    assert (b.stream_from, b.upstream) == (None, (a.index,))
    assert (a.streams, a.downstream) == ((), (b.index,))


def test_map_that_follows_a_map_and_needs_its_whole_waits_for_both() -> None:
    a, b = plan([step("a", {"x": [1]}, over="x"), step("b", {"x": ref("a"), "all": ref("a")}, over="x")]).nodes
    assert (b.stream_from, b.upstream, b.waits) == (a.index, (a.index,), 2)


def test_routes_are_those_of_all_sub_workflows() -> None:
    built = build(RICH)
    steps = ("inner", "list", "each", "next", "last")
    assert built.routes == {Route(name, "s") for name in steps}
    assert built.by_id["get"].route == HTTP_ROUTE


def test_child_digests_are_those_called_directly() -> None:
    assert child_digests(msgspec.json.encode(RICH)) == ["child"]


# --- size -----------------------------------------------------------------------------------------------------------


def test_chain_of_ten_thousand_steps_is_built_in_linear_time() -> None:
    def seconds(length: int) -> float:
        nodes = [step("s00000"), *(step(f"s{n:05}", {"x": ref(f"s{n - 1:05}")}) for n in range(1, length))]
        body = definition("w", nodes)
        begun = time.process_time()
        built = build(body)
        assert built.nodes[-1].level == length - 1
        return time.process_time() - begun

    seconds(100)
    assert seconds(10_000) < 40 * max(seconds(1000), 0.01)


def test_long_cycle_is_found_without_recursion() -> None:
    nodes = [step(f"s{n:05}", after=[f"s{(n - 1) % 10_000:05}"]) for n in range(10_000)]
    with pytest.raises(PlanError, match=r"^cycle: "):
        plan(nodes)
