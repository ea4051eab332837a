"""The shape of a workflow is read from its definition and written down in four ways."""

import json
from collections.abc import Sequence
from typing import Any

from hopline_cli import shape


def node(name: str, *, inputs: Any = None, after: Sequence[str] = (), kind: str = "python", **fields: Any) -> Any:
    plain = {"id": name, "kind": kind, "inputs": inputs or {}, "after": list(after), "over": None, "workflow": None}
    return plain | fields


def ref(name: str) -> dict[str, Any]:
    return {"$ref": name, "path": []}


SALES: dict[str, Any] = {
    "name": "daily_sales",
    "nodes": [
        node("join", inputs={"sales": ref("sales"), "options": {"users": [ref("users")]}}),
        node("list_shops", inputs={"day": ref("$input"), "fixed": {"$literal": {"$ref": "nothing"}}}),
        node("notify", kind="http", after=["users"], request={"url": {"$text": ["http://x/", ref("join")]}}),
        node(
            "sales",
            over="shop",
            workflow={"name": "shop_sales", "digest": "d"},
            kind="workflow",
            inputs={"shop": ref("list_shops")},
        ),
        node("users"),
    ],
}


def test_nodes_come_by_level_with_what_they_wait_for() -> None:
    assert [(one.id, one.level, one.upstream) for one in shape.nodes(SALES)] == [
        ("list_shops", 0, ()),
        ("users", 0, ()),
        ("sales", 1, ("list_shops",)),
        ("join", 2, ("sales", "users")),
        ("notify", 3, ("join", "users")),
    ]


def test_text_is_a_tree_in_which_every_step_stands_once() -> None:
    assert shape.as_text(SALES) == (
        "daily_sales\n"
        "  list_shops\n"
        "  └─▶ sales  [workflow shop_sales, for each]\n"
        "      └─▶ join   ◀─ users\n"
        "          └─▶ notify  [http]   ◀─ users\n"
        "  users"
    )


def test_conditions_arms_and_steps_at_the_end_are_part_of_the_shape() -> None:
    is_large = {"$op": ">", "args": [ref("price"), 500]}
    steps = [
        node("bye", closes="finally"),
        node("check", guards=[{"if": is_large, "is": True}]),
        node("price"),
        node("pay"),
        node("recover", kind="recover", arms=[{"value": None, "steps": ["pay"]}]),
        node("branch", kind="branch", arms=[{"guards": [{"if": is_large, "is": True}], "value": ref("check")}]),
    ]
    assert shape.as_text({"name": "w", "nodes": steps}) == (
        "w\n"
        "  bye  [at the end of every run]\n"
        "  pay\n"
        "  └─▶ recover  [recover]\n"
        "  price\n"
        "  └─▶ check\n"
        "      └─▶ branch  [branch]   ◀─ price"
    )


def test_mermaid_quotes_labels_and_numbers_nodes() -> None:
    lines = shape.as_mermaid(SALES).splitlines()
    assert lines[0] == "flowchart LR"
    assert '  n2[["sales  [workflow shop_sales, for each]"]]' in lines
    assert "  n0 --> n2" in lines


def test_dot_names_every_edge() -> None:
    lines = shape.as_dot(SALES).splitlines()
    assert lines[0] == 'digraph "daily_sales" {'
    assert '  "join" -> "notify";' in lines
    assert lines[-1] == "}"


def test_json_has_nodes_with_levels_and_edges() -> None:
    graph = shape.as_json(SALES)
    assert json.loads(json.dumps(graph)) == graph
    assert ["users", "join"] in graph["edges"]
    assert graph["nodes"][2] == {
        "id": "sales",
        "kind": "workflow",
        "level": 1,
        "mapped": True,
        "workflow": "shop_sales",
    }


def test_workflows_that_a_workflow_runs_are_its_callees() -> None:
    assert shape.callees(SALES) == {"shop_sales"}


def test_names_are_escaped_before_they_are_drawn() -> None:
    odd: dict[str, Any] = {"name": "a\x1b[2J", "nodes": [node('b"\x1b]0;x\x07')]}
    for drawn in (shape.as_text(odd), shape.as_mermaid(odd), shape.as_dot(odd)):
        assert "\x1b" not in drawn


def test_workflow_of_no_steps_is_its_name() -> None:
    assert shape.as_text({"name": "empty", "nodes": []}) == "empty"
