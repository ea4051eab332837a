"""What compiling makes of calls: nodes, references, order, sub-workflows."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from hopline import Retry, step, workflow
from hopline.definition import Definition, Node
from hopline.graph import cycle_in


class Shop(BaseModel):
    id: str
    currency: str = "EUR"


@dataclass
class Point:
    x: int
    y: int = 0


class Options(TypedDict):
    deep: bool


class Colour(Enum):
    RED = "red"


class Flag(StrEnum):
    ON = "on"


MAIN = Shop(id="main")


@step
def start(n: int, label: str = "x") -> int:
    return n


@step(retry=Retry(2), timeout="30s", deadline="1h", queue="slow", max_parallel=5)
async def finish(a: int, b: int) -> int:
    return a + b


@step
def log(value: Any) -> None: ...


@step
def total(numbers: list[int]) -> int:
    return sum(numbers)


def of(definition: Definition, node_id: str) -> Node:
    return definition.nodes[node_id]


def test_call_becomes_a_node_with_all_its_parameters() -> None:
    @workflow
    def wired(n: int) -> int:
        return start(n)

    definition = wired.compile()
    assert of(definition, "start").to_json() == {
        "id": "start",
        "kind": "python",
        "step": "start",
        "signature": start.signature,
        "inputs": {"n": {"$ref": "$input", "path": ["n"]}, "label": "x"},
        "request": None,
        "workflow": None,
        "over": None,
        "after": [],
        "result": {"type": "integer"},
        "policy": {"retry": None, "timeout": None, "deadline": None, "queue": "default", "max_parallel": None},
    }
    assert definition.result == {"$ref": "start", "path": []}
    assert definition.to_json()["format"] == 1


def test_async_step_is_the_same_kind_of_node_with_its_awaited_type() -> None:
    @workflow
    def wired() -> int:
        return finish(1, b=2)

    node = of(wired.compile(), "finish")
    assert (node.kind, node.inputs, node.result) == ("python", {"a": 1, "b": 2}, {"type": "integer"})
    assert node.policy == {
        "retry": {"attempts": 2, "first": 1.0, "factor": 2.0, "max": 3600.0, "jitter": "full", "on": []},
        "timeout": 30.0,
        "deadline": 3600.0,
        "queue": "slow",
        "max_parallel": 5,
    }


def test_second_call_of_a_step_is_numbered() -> None:
    @step
    def start_2(n: int) -> int:
        return n

    @workflow
    def wired() -> list[int]:
        return [start_2(0), start(1), start(2), start(3)]

    assert [(node.id, node.inputs["n"]) for node in wired.compile().nodes.values()] == [
        ("start_2", 0),
        ("start", 1),
        ("start_3", 2),
        ("start_4", 3),
    ]


def test_step_whose_name_was_given_to_a_second_call_gets_another() -> None:
    @step
    def start_2(n: int) -> int:
        return n

    @workflow
    def wired() -> list[int]:
        return [start(1), start(2), start_2(3), start_2(4)]

    assert list(wired.compile().nodes) == ["start", "start_2", "start_2_2", "start_2_3"]


def test_edges_follow_data_and_order() -> None:
    @workflow
    def wired(n: int) -> int:
        a = start(n)
        b = start(a)
        first = log.after([a, (b,)], a)(n)
        return finish.after(first)(b, 1)

    definition = wired.compile()
    assert list(definition.graph.edges) == [
        ("start", "start_2"),
        ("start", "log"),
        ("start_2", "log"),
        ("start_2", "finish"),
        ("log", "finish"),
    ]
    assert of(definition, "log").after == ("start", "start_2")
    assert of(definition, "log").upstream() == ["start", "start_2"]


def test_after_can_be_said_in_parts() -> None:
    @workflow
    def wired() -> None:
        a, b = log(1), log(2)
        log.after(a).using(timeout="1s").after(b)(3)

    assert of(wired.compile(), "log_3").after == ("log", "log_2")


def test_results_may_be_nested_in_lists_and_dicts() -> None:
    @workflow
    def wired(n: int) -> dict[str, Any]:
        a = start(n)
        log({"deep": [{"er": (a, 1.5, None, True)}]})
        return {"a": a, "b": [total([a, 2, start(3)])], "n": n}

    definition = wired.compile()
    assert of(definition, "log").inputs["value"] == {"deep": [{"er": [{"$ref": "start", "path": []}, 1.5, None, True]}]}
    assert of(definition, "total").inputs["numbers"] == [
        {"$ref": "start", "path": []},
        2,
        {"$ref": "start_2", "path": []},
    ]
    assert definition.result == {
        "a": {"$ref": "start", "path": []},
        "b": [{"$ref": "total", "path": []}],
        "n": {"$ref": "$input", "path": ["n"]},
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Shop(id="a"), {"id": "a", "currency": "EUR"}),
        ([Shop(id="a")], [{"id": "a", "currency": "EUR"}]),
        (Point(1), {"x": 1, "y": 0}),
        (Options(deep=True), {"deep": True}),
        (Colour.RED, "red"),
        (Flag.ON, "on"),
        (date(2026, 11, 20), "2026-11-20"),
        (datetime(2026, 11, 20, 6, tzinfo=UTC), "2026-11-20T06:00:00Z"),
        (Decimal("1.10"), "1.10"),
        (UUID(int=0), "00000000-0000-0000-0000-000000000000"),
        ({3, 1, 2}, [1, 2, 3]),
        ({"a": {"b", "a"}}, {"a": ["a", "b"]}),
        ({1: "int key"}, {"1": "int key"}),
        (10**30, 10**30),
    ],
)
def test_values_of_the_file_become_json(value: Any, expected: Any) -> None:
    @workflow
    def wired() -> None:
        log(value)

    assert of(wired.compile(), "log").inputs["value"] == expected


def test_sets_inside_models_are_stored_in_order() -> None:
    class Tagged(BaseModel):
        tags: set[str]
        more: dict[str, frozenset[int]]

    @workflow
    def wired() -> None:
        log(Tagged(tags={"c", "a", "b"}, more={"x": frozenset({30, 4, 5})}))

    assert of(wired.compile(), "log").inputs["value"] == {"tags": ["a", "b", "c"], "more": {"x": [30, 4, 5]}}


def test_parameters_carry_types_and_defaults() -> None:
    @workflow
    def wired(
        folder: str,
        shop: Shop = MAIN,
        day: date = date(2026, 1, 1),
        mode: Literal["a", "b"] = "a",
        limit: int | None = None,
    ) -> None:
        log([folder, shop, day, mode, limit])

    schema = wired.compile().parameters
    assert schema == {
        "type": "object",
        "additionalProperties": False,
        "required": ["folder"],
        "properties": {
            "folder": {"type": "string"},
            "shop": {"$ref": "#/$defs/Shop", "default": {"id": "main", "currency": "EUR"}},
            "day": {"type": "string", "format": "date", "default": "2026-01-01"},
            "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
            "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
        },
        "$defs": {
            "Shop": {
                "type": "object",
                "properties": {"id": {"type": "string"}, "currency": {"type": "string", "default": "EUR"}},
                "required": ["id"],
            }
        },
    }


def test_workflow_without_parameters_has_an_empty_closed_schema() -> None:
    @workflow
    def wired() -> int:
        return start(1)

    assert wired.compile().parameters == {
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
        "$defs": {},
    }


def test_workflow_without_steps_returns_what_it_says() -> None:
    @workflow
    def constant(name: str) -> dict[str, str]:
        return {"greeting": f"hello {name}"}

    definition = constant.compile()
    assert not definition.nodes
    assert definition.result == {
        "greeting": {"$text": ["hello ", {"$ref": "$input", "path": ["name"], "format": ""}]},
    }


def test_called_workflow_is_a_node_and_its_definition_a_child() -> None:
    @workflow
    def leaf(n: int, label: str = "leaf") -> int:
        return start(n, label)

    @workflow
    def middle(n: int) -> int:
        return leaf(leaf(n))

    @workflow
    def root(n: int) -> int:
        return total([middle(n), leaf(n, label="root")])

    definition = root.compile()
    middle_digest, leaf_digest = middle.compile().digest, leaf.compile().digest
    assert set(definition.children) == {middle_digest, leaf_digest}
    assert definition.children[middle_digest].children.keys() == {leaf_digest}
    node = of(definition, "leaf")
    assert node.kind == "workflow"
    assert node.workflow == {"name": "leaf", "digest": leaf_digest}
    assert node.inputs == {"n": {"$ref": "$input", "path": ["n"]}, "label": "root"}
    assert "children" not in definition.to_json()


def test_change_in_a_called_workflow_changes_the_caller() -> None:
    def version(label: str) -> str:
        @workflow
        def leaf(n: int) -> int:
            return start(n, label)

        @workflow
        def root(n: int) -> int:
            return leaf(n)

        return root.compile().digest

    assert version("a") == version("a")
    assert version("a") != version("b")


def test_nodes_are_stored_sorted() -> None:
    @workflow
    def wired() -> int:
        return total([start(1), finish(2, 3)])

    assert [node["id"] for node in wired.compile().to_json()["nodes"]] == ["finish", "start", "total"]


def test_cycle_among_nodes_is_found() -> None:
    def node(node_id: str, *, after: tuple[str, ...] = (), uses: str | None = None) -> Node:
        inputs = {"x": {"$ref": uses, "path": []}} if uses else {}
        return Node(
            id=node_id, kind="python", step=node_id, signature="", inputs=inputs, after=after, result={}, policy={}
        )

    straight = {"a": node("a"), "b": node("b", uses="a")}
    assert cycle_in(straight) == []
    ring = {"a": node("a", after=("c",)), "b": node("b", uses="a"), "c": node("c", uses="b"), "d": node("d")}
    found = cycle_in(ring)
    assert found[0] == found[-1]
    assert sorted(found[1:]) == ["a", "b", "c"]


def test_list_changed_after_the_call_changes_nothing() -> None:
    @workflow
    def wired() -> int:
        deps: list[Any] = []
        later = log.after(deps)
        values = [1]
        first = total(values)
        values.append(start(first))
        deps.append(values[1])
        later(values[1])
        return first

    definition = wired.compile()
    assert of(definition, "total").inputs["numbers"] == [1]
    assert of(definition, "log").after in ((), ("start",))


def test_large_workflow_compiles() -> None:
    @workflow
    def wired(n: int) -> int:
        return total([start(n, f"{i}") for i in range(2000)])

    assert len(wired.compile().nodes) == 2001


def test_parameters_may_be_called_like_anything() -> None:
    @step
    def odd(self: int, fn: int, args: int, kwargs: int, items: int, path: int) -> int:
        return self + fn + args + kwargs + items + path

    @workflow
    def wired(self: int, step: int) -> list[int]:
        return [
            odd(self, step, args=1, kwargs=2, items=3, path=4),
            *odd.map([1], fn=1, args=1, kwargs=1, items=1, path=1)[:0],
        ]

    numbers = {"self": 1, "fn": 2, "args": 1, "kwargs": 2, "items": 3, "path": 4}
    assert odd(**numbers) == 13
    assert wired(self=1, step=2) == [13]
