"""``@dynamic`` while compiling, as a plain call, and as a worker traces it."""

from typing import Any

import pytest
from pydantic import BaseModel

from hopline import DefinitionError, Request, Step, dynamic, http, secret, step, workflow
from hopline.compiler import compile_call
from hopline.pinning import pinned
from tests.authoring.refused import refused


class Picture(BaseModel):
    name: str
    width: int = 100


@step
def shrink(picture: Picture, width: int) -> str:
    return f"{picture.name}@{width}"


@step
def join(parts: list[str]) -> str:
    return "+".join(parts)


@http
def publish(name: str, of: str) -> Request[str]:
    return http.post(f"https://p.example.com/{name}", json={"of": of}, headers={"Authorization": secret("P")})


@workflow
def small(picture: Picture) -> str:
    return shrink(picture, 10)


@dynamic
def sizes(picture: Picture, widths: list[int]) -> str:
    parts = [shrink(picture, width) for width in widths if width < picture.width]
    return join(parts) if parts else "nothing"


PICTURE = Picture(name="a")


def everything(_: Step[..., Any]) -> bool:
    return True


def traced(*widths: int) -> dict[str, Any]:
    return pinned(compile_call(sizes, {"picture": PICTURE, "widths": list(widths)}, everything))


# --- compiled and plain -----------------------------------------------------------------------------------------------


def test_call_is_one_node_that_nobody_looks_into() -> None:
    @workflow
    def wired(picture: Picture) -> str:
        return sizes(picture, [1, 2])

    definition = wired.compile()
    (node,) = definition.nodes.values()
    assert (node.kind, node.step, node.signature) == ("dynamic", "sizes", sizes.signature)
    assert node.inputs == {"picture": {"$ref": "$input", "path": ["picture"]}, "widths": [1, 2]}
    assert definition.children == {}


def test_it_can_be_run_by_itself() -> None:
    definition = sizes.compile()
    assert definition.name == "sizes"
    assert definition.nodes["sizes"].kind == "dynamic"
    assert definition.parameters["required"] == ["picture", "widths"]
    assert definition.result == {"$ref": "sizes", "path": []}


def test_plain_call_runs_the_body() -> None:
    assert sizes(PICTURE, [1, 2, 200]) == "a@1+a@2"
    assert sizes(PICTURE, []) == "nothing"


def test_async_body_is_refused() -> None:
    with pytest.raises(DefinitionError, match="is async"):

        @dynamic
        async def wrong() -> int:
            return 1


def test_batch_of_calls_is_refused() -> None:
    @workflow
    def wired(pictures: list[Picture]) -> list[str]:
        return sizes.using(batch=3).map(pictures, [1])  # refused

    refused(wired, match="each element is called by itself")


@pytest.mark.parametrize("called", [small, publish])
def test_batch_is_for_python_steps(called: Any) -> None:
    @workflow
    def wired() -> Any:
        return called.using(batch=3).map(["x"], *(["y"] if called is publish else []))  # refused

    assert "max_parallel" in str(refused(wired, match="cannot take batch=3").hint)


def test_batch_of_one_call_is_refused() -> None:
    @workflow
    def wired(picture: Picture) -> str:
        return shrink.using(batch=3)(picture, 1)  # refused

    refused(wired, match="is called for one value")


@pytest.mark.parametrize("batch", [0, -1, True, "3"])
def test_batch_is_a_number(batch: Any) -> None:
    with pytest.raises(DefinitionError, match="batch is"):
        shrink.using(batch=batch)


def test_batch_stands_in_the_policy_where_there_is_one() -> None:
    @workflow
    def wired(pictures: list[Picture]) -> list[list[str]]:
        return [shrink.using(batch=3).map(pictures, 1), shrink.map(pictures, 1)]

    nodes = wired.compile().nodes
    assert nodes["shrink"].policy["batch"] == 3
    assert "batch" not in nodes["shrink_2"].policy


# --- traced -----------------------------------------------------------------------------------------------------------


def test_traced_graph_depends_on_real_values() -> None:
    assert [node["id"] for node in traced(1, 2, 500)["definitions"][0]["nodes"]] == ["join", "shrink", "shrink_2"]
    assert traced(500)["definitions"][0]["nodes"] == []


def test_values_are_the_input_of_the_run_and_not_part_of_the_graph() -> None:
    one, other = traced(1, 2), traced(3, 4)
    picture = {"name": "a", "width": 100}
    assert one["input"] == {"shrink": {"picture": picture, "width": 1}, "shrink_2": {"picture": picture, "width": 2}}
    assert one["definitions"] == other["definitions"]
    assert one["definitions"] != traced(1)["definitions"]


def test_result_that_is_known_already_is_a_value_too() -> None:
    graph = traced()
    assert graph["input"] == {"$result": "nothing"}
    assert graph["definitions"][0]["result"] == {"$ref": "$input", "path": ["$result"]}


def test_values_in_a_request_are_taken_out_and_secrets_stay() -> None:
    @dynamic
    def published(name: str) -> str:
        return publish(name, small(Picture(name=name)))

    graph = pinned(compile_call(published, {"name": "a b"}, everything))
    request = next(node["request"] for node in graph["definitions"][0]["nodes"] if node["id"] == "publish")
    assert request["url"] == {"$ref": "$input", "path": ["publish", "url"]}
    assert request["headers"] == {"Authorization": {"$secret": "P"}}
    assert request["json"] == {"of": {"$ref": "small", "path": []}}
    assert graph["input"]["publish"] == {"url": "https://p.example.com/a b"}
    assert [definition["name"] for definition in graph["definitions"]] == ["published", "small"]


def test_step_that_is_not_served_is_refused_with_the_line_of_its_call() -> None:
    with pytest.raises(DefinitionError, match="does not serve the step 'shrink'") as caught:
        compile_call(sizes, {"picture": PICTURE, "widths": [1]}, lambda called: called.name != "shrink")
    assert caught.value.hint
    assert caught.value.file == __file__


def test_results_in_the_body_have_no_values() -> None:
    @dynamic
    def wrong(picture: Picture) -> int:
        return 1 if small(picture) == "x" else 2

    with pytest.raises(DefinitionError, match="truth test"):
        compile_call(wrong, {"picture": PICTURE}, everything)


def test_error_in_the_body_is_told_with_its_line() -> None:
    @dynamic
    def wrong(picture: Picture) -> str:
        raise ValueError("no such picture")

    with pytest.raises(DefinitionError, match="wrong\\(\\) raised ValueError: no such picture") as caught:
        compile_call(wrong, {"picture": PICTURE}, everything)
    assert caught.value.file == __file__
