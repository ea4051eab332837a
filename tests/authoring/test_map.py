"""``.map`` while compiling; ``test_plain_calls`` has it as a plain loop."""

from typing import Any

import pytest
from pydantic import BaseModel

from hopline import DefinitionError, Request, http, secret, step, workflow
from tests.authoring.refused import refused


class Shop(BaseModel):
    id: str
    tags: list[str]


@step
def shops() -> list[Shop]:
    return []


@step
def pair() -> tuple[int, str]:
    return (1, "a")


@step
def name(shop: Shop, prefix: str = "") -> str:
    return prefix + shop.id


@step
def length(text: str) -> int:
    return len(text)


@step
def total(numbers: list[int]) -> int:
    return sum(numbers)


@http
def ping(shop: Shop, day: str) -> Request[int]:
    return http.post(
        f"https://ping.example.com/{shop.id}/{day}",
        json={"tags": shop.tags, "all": shop},
        headers={"Authorization": secret("T")},
    )


@workflow
def one_shop(shop: Shop, loud: bool = False) -> int:
    return length(name(shop))


def test_mapped_step_takes_each_element_and_the_same_rest() -> None:
    @workflow
    def wired(prefix: str) -> list[str]:
        return name.using(max_parallel=50).map(shops(), prefix)

    node = wired.compile().nodes["name"]
    assert node.over == "shop"
    assert node.inputs == {"shop": {"$ref": "shops", "path": []}, "prefix": {"$ref": "$input", "path": ["prefix"]}}
    assert node.result == {"type": "string"}
    assert node.policy["max_parallel"] == 50


def test_result_of_a_map_is_a_list() -> None:
    @workflow
    def wired() -> str:
        names = name.map(shops(), prefix="a")
        return names[0]

    definition = wired.compile()
    assert definition.result == {"$ref": "name", "path": [0]}
    assert definition.nodes["name"].inputs["prefix"] == "a"


def test_map_over_a_map_refers_to_the_whole_of_it() -> None:
    @workflow
    def wired() -> int:
        return total(length.map(name.map(shops())))

    definition = wired.compile()
    assert definition.nodes["length"].inputs == {"text": {"$ref": "name", "path": []}}
    assert definition.nodes["total"].over is None
    assert list(definition.graph.edges) == [("shops", "name"), ("name", "length"), ("length", "total")]


def test_map_over_a_path() -> None:
    @workflow
    def wired(shop: Shop) -> list[int]:
        return length.map(shop.tags)

    assert wired.compile().nodes["length"].inputs == {"text": {"$ref": "$input", "path": ["shop", "tags"]}}


def test_map_over_values_of_the_file() -> None:
    @workflow
    def wired() -> list[list[int]]:
        return [
            length.map(["a", "b"]),
            length.map(str(i) for i in range(2)),
            length.map((name(shops()[0]), "x")),
            length.map([]),
        ]

    inputs = [node.inputs["text"] for node in wired.compile().nodes.values() if node.step == "length"]
    assert inputs == [["a", "b"], ["0", "1"], [{"$ref": "name", "path": []}, "x"], []]


def test_mapped_workflow_starts_one_run_for_each_element() -> None:
    @workflow
    def wired() -> list[int]:
        return one_shop.map(shops(), loud=True)

    definition = wired.compile()
    node = definition.nodes["one_shop"]
    assert (node.kind, node.over, node.inputs["loud"]) == ("workflow", "shop", True)
    assert list(definition.children) == [one_shop.compile().digest]


def test_maps_nest_through_workflows() -> None:
    @workflow
    def inner(words: list[str]) -> list[int]:
        return length.map(words)

    @workflow
    def outer(lines: list[list[str]]) -> list[list[int]]:
        return inner.map(lines)

    assert outer.compile().nodes["inner"].inputs == {"words": {"$ref": "$input", "path": ["lines"]}}


def test_mapped_http_step_uses_the_element_in_its_request() -> None:
    @workflow
    def wired(day: str) -> list[int]:
        return ping.map(shops(), day)

    node = wired.compile().nodes["ping"]
    assert node.over == "shop"
    assert node.inputs == {"shop": {"$ref": "shops", "path": []}}
    assert node.request == {
        "method": "POST",
        "url": {
            "$text": [
                "https://ping.example.com/",
                {"$ref": "$item", "path": ["id"], "format": ""},
                "/",
                {"$ref": "$input", "path": ["day"], "format": ""},
            ]
        },
        "params": {},
        "headers": {"Authorization": {"$secret": "T"}},
        "has_json": True,
        "json": {"tags": {"$ref": "$item", "path": ["tags"]}, "all": {"$ref": "$item", "path": []}},
    }
    assert node.upstream() == ["shops"]


def test_mapped_http_step_over_values_of_the_file_knows_its_parameter_type() -> None:
    @workflow
    def wired() -> list[int]:
        return ping.map([Shop(id="a", tags=[])], "x")

    node = wired.compile().nodes["ping"]
    assert node.inputs == {"shop": [{"id": "a", "tags": []}]}
    assert node.upstream() == []


def test_path_in_a_request_is_checked_for_elements_too() -> None:
    @http
    def wrong(shop: Shop) -> Request[None]:
        return http.post(f"https://ping.example.com/{getattr(shop, 'ids')}")  # noqa: B009  # refused

    @workflow
    def wired() -> None:
        wrong.map(shops())

    assert refused(wired, match="the element has no 'ids'").hint == "did you mean 'id'?"


def test_map_over_what_is_no_list_is_refused() -> None:
    @workflow
    def wired(shop: Shop) -> None:
        anything: Any = shop
        name.map(anything)  # refused

    error = refused(wired, match=r"name\.map\(\) goes over shop, which is an object")
    assert error.hint == "map needs a list; for one value call name(...)"


@pytest.mark.parametrize("items", ["text", b"bytes", {"a": 1}, {1, 2}, 5, None])
def test_map_over_a_value_that_is_no_list_is_refused(items: Any) -> None:
    @workflow
    def wired() -> None:
        length.map(items)  # refused

    refused(wired, match=r"length\.map\(\) goes over a")


def test_map_over_a_tuple_of_known_length_is_allowed() -> None:
    @step
    def show(value: int | str) -> None: ...

    @workflow
    def wired() -> None:
        show.map(pair())

    assert wired.compile().nodes["show"].over == "value"


def test_map_of_a_step_without_parameters_is_refused() -> None:
    @workflow
    def wired() -> None:
        anything: Any = shops
        anything.map([1])  # refused

    refused(wired, match="has no parameter to map over")


def test_element_that_does_not_fit_is_refused() -> None:
    @workflow
    def wrong_result() -> None:
        anything: Any = shops()
        length.map(anything)  # refused

    refused(wrong_result, match="text does not fit its type: in each element, it is an object, not text")

    @workflow
    def wrong_value() -> None:
        anything: Any = ["a", 5]
        length.map(anything)  # refused

    refused(wrong_value, match="text does not fit its type")


def test_wrong_arguments_of_a_map_are_refused() -> None:
    @workflow
    def wired() -> None:
        anything: Any = length
        anything.map(["a"], 5)  # refused

    error = refused(wired, match="too many positional arguments")
    assert error.hint == "its parameters are length(text: str)"
    assert isinstance(error, DefinitionError)
