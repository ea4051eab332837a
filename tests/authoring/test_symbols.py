"""What a result is, and is not, while a workflow body is traced."""

import copy
import functools
import json
import math
import os
import pickle
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from hopline import DefinitionError, Workflow, step, workflow
from tests.authoring.refused import refused


class Item(BaseModel):
    name: str
    items: list[str]
    count: int
    keys: dict[str, int]
    fn: int = 0
    shape: int = 0
    wiring: int = 0


@dataclass
class Point:
    x: int
    y: int


@step
def item() -> Item:
    return Item(name="a", items=[], count=1, keys={})


@step
def consume(value: Any) -> None: ...


def body(fn: Callable[[Any], object]) -> Workflow[[], None]:
    """Return a workflow whose body does *fn* with a result; what that gives is passed to a step."""

    @workflow
    def wired() -> None:
        consume(fn(item()))

    return wired


def inputs(fn: Callable[[Any], object]) -> Any:
    return body(fn).compile().nodes["consume"].inputs["value"]


def keep(into: list[Any], what: object, result: object) -> object:
    into.append(what)
    return result


def ref(*path: str | int) -> dict[str, Any]:
    return {"$ref": "item", "path": list(path)}


OPERATIONS: dict[str, list[Callable[[Any], object]]] = {
    "a truth test": [
        lambda r: 1 if r.count else 2,
        lambda r: not r,
        lambda r: r and 1,
        lambda r: bool(r),
        lambda r: any([r]),
    ],
    "len": [lambda r: len(r.items)],
    "iteration": [
        lambda r: list(r.items),
        lambda r: [x for x in r.items],  # noqa: C416
        lambda r: [*r.items],
        lambda r: sum(r.items),
        lambda r: sorted(r.items),
        lambda r: max(r.items),
        lambda r: dict(zip(r.items, r.items, strict=True)),
        lambda r: next(r),
        lambda r: list(reversed(r.items)),
        lambda r: math.prod(r.items),
        lambda r: consume(*r.items),
        lambda r: (lambda a, b: a)(*r),
    ],
    "`in`": [lambda r: "a" in r.items],
    "arithmetic": [
        lambda r: r.count + 1,
        lambda r: 1 + r.count,
        lambda r: "a" + r.name,
        lambda r: r.name + "a",
        lambda r: r.count * 2,
        lambda r: 2**r.count,
        lambda r: -r.count,
        lambda r: abs(r.count),
        lambda r: round(r.count, 2),
        lambda r: math.floor(r.count),
        lambda r: divmod(r.count, 2),
        lambda r: r.keys | {"a": 1},
        lambda r: ~r.count,
        lambda r: r.count @ 1,
        lambda r: r.name % 1,
    ],
    "a call": [lambda r: r(), lambda r: r.name("x")],
    "str": [lambda r: str(r.name), lambda r: f"{r.name!s}", lambda r: "%s" % r.name],  # noqa: UP031
    "a conversion": [
        lambda r: int(r.count),
        lambda r: float(r.count),
        lambda r: complex(r.count),
        lambda r: bytes(r.name),
        lambda r: os.fspath(r.name),
    ],
    "a whole number, as range() takes it,": [lambda r: range(r.count), lambda r: [1, 2][r.count]],
    "a change": [
        lambda r: setattr(r, "name", 1),
        lambda r: delattr(r, "name"),
        lambda r: r.items.__setitem__(0, 1),
        lambda r: r.items.__delitem__(0),
    ],
    "`with`": [lambda r: r.__enter__()],
    "`await`": [lambda r: r.__await__()],
    "isinstance": [
        lambda r: isinstance(r, Item),
        lambda r: Path(r.name),
        lambda r: json.dumps(r),
        lambda r: functools.singledispatch(lambda value: 1)(r),
        lambda r: issubclass(r.__class__, int),
    ],
    "pickling": [lambda r: pickle.dumps(r)],
}


@pytest.mark.parametrize(("what", "operation"), [(what, op) for what, ops in OPERATIONS.items() for op in ops])
def test_what_needs_the_value_is_refused(what: str, operation: Callable[[Any], object]) -> None:
    with pytest.raises(DefinitionError) as caught:
        body(operation).compile()
    assert caught.value.message.startswith(what)
    assert caught.value.file == __file__
    assert caught.value.hint


def test_every_kind_of_refusal_has_a_hint_of_its_own() -> None:
    hints = set()
    for operations in OPERATIONS.values():
        with pytest.raises(DefinitionError) as caught:
            body(operations[0]).compile()
        hints.add(caught.value.hint)
    assert len(hints) == len(OPERATIONS)


def test_refusal_names_the_line_in_the_body() -> None:
    @workflow
    def branching() -> None:
        thing = item()
        if thing.count:  # refused
            consume(thing)

    error = refused(branching, match=r"a truth test needs the value of item\.count")
    assert "branch(" in (error.hint or "")


def test_refusal_names_the_line_of_the_body_when_a_library_asks() -> None:
    @workflow
    def averaging() -> None:
        numbers: Any = item().items
        consume(statistics.mean(numbers))  # refused

    refused(averaging, match=r"iteration needs the value of item\.items")


def test_other_failure_of_the_body_names_its_line_and_cause() -> None:
    @workflow
    def joining() -> None:
        names: list[str] = ["a", item().name]
        consume(" ".join(names))  # refused

    error = refused(joining, match=r"joining\(\) raised TypeError: sequence item 1")
    assert isinstance(error.__cause__, TypeError)


def test_refusal_stands_even_when_the_body_catches_it() -> None:
    @workflow
    def stubborn() -> None:
        thing = item()
        try:
            consume(len(thing.items))  # refused
        except DefinitionError:
            consume(thing)

    refused(stubborn, match="len")


def test_attributes_and_items_are_paths() -> None:
    assert inputs(lambda r: r) == ref()
    assert inputs(lambda r: r.name) == ref("name")
    assert inputs(lambda r: r.items[0]) == ref("items", 0)
    assert inputs(lambda r: r.items[-1]) == ref("items", -1)
    assert inputs(lambda r: r["keys"]["any key"]) == ref("keys", "any key")


@pytest.mark.parametrize("name", ["items", "keys", "count", "fn", "shape", "wiring"])
def test_no_field_name_is_taken_by_the_symbol(name: str) -> None:
    assert inputs(lambda r: getattr(r, name)) == ref(name)


def test_dunder_names_are_never_paths() -> None:
    def probe(result: Any) -> object:
        assert not hasattr(result, "__dataclass_fields__")
        assert not hasattr(result, "__pydantic_serializer__")
        assert not hasattr(result, "__array__")
        return result

    assert inputs(probe) == ref()


def test_result_survives_as_default_argument_closure_and_partial() -> None:
    def with_default(result: Any) -> object:
        def inner(value: Any = result) -> Any:
            return value

        return [inner(), (lambda: result)(), functools.partial(inner, result.name)()]

    assert inputs(with_default) == [ref(), ref(), ref("name")]


def test_result_survives_copies() -> None:
    assert inputs(lambda r: copy.copy(r)) == ref()
    assert inputs(lambda r: copy.deepcopy({"a": [r.name]})) == {"a": [ref("name")]}


def test_result_can_be_a_member_of_sets_and_a_key_of_dicts_of_the_body() -> None:
    def registered(result: Any) -> object:
        seen = {result: "whole", result.name: "name"}
        assert len({result, result.name}) == 2
        return [key for key, word in seen.items() if word == "name"]

    assert inputs(registered) == [ref("name")]


def test_result_can_be_shown_while_debugging() -> None:
    shown: list[str] = []
    inputs(lambda r: keep(shown, repr(r.items[0]), r))
    assert shown == ["<result item.items.0>\0"]


def test_result_after_the_trace_is_a_harmless_object() -> None:
    kept: list[Any] = []
    inputs(lambda r: keep(kept, r, r))
    assert repr(kept[0]) == "<result item>"
    assert not isinstance(kept[0], Item)
    with pytest.raises(DefinitionError, match="a truth test"):
        assert kept[0].count == 1


@pytest.mark.parametrize(
    ("key", "words"), [(slice(0, 1), "a slice"), (1.5, "a float"), (None, "a NoneType"), (True, "a bool")]
)
def test_only_names_and_whole_numbers_are_paths(key: Any, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        inputs(lambda r: r.items[key])


def test_result_cannot_be_the_key_of_a_path() -> None:
    with pytest.raises(DefinitionError, match="another result"):
        inputs(lambda r: r.keys[r.name])


def test_result_used_in_another_workflow_is_refused() -> None:
    kept: list[Any] = []
    inputs(lambda r: keep(kept, r, r))

    @workflow
    def borrowing() -> None:
        consume(kept[0])  # refused

    refused(borrowing, match=r"value uses item, a result of another workflow")


def test_text_with_a_result_of_another_workflow_is_refused() -> None:
    kept: list[str] = []
    inputs(lambda r: keep(kept, f"{r.name}", r))

    @workflow
    def borrowing() -> None:
        consume(kept[0])  # refused

    refused(borrowing, match="a text with a result of another workflow")


def test_model_built_from_results_is_refused() -> None:
    @workflow
    def modelled() -> None:
        thing = item()
        consume(Item(name=thing.name, items=[], count=1, keys={}))  # refused

    error = refused(modelled)
    assert "inside a step" in (error.hint or "")


def test_model_that_pydantic_lets_pass_is_refused() -> None:
    class Loose(BaseModel):
        value: Any

    for build in (
        lambda r: Loose(value=r),
        lambda r: Loose(value=[f"{r.name}"]),
        lambda r: Loose.model_construct(value=r),
    ):
        with pytest.raises(DefinitionError, match="is a Loose made from results"):
            inputs(build)


def test_dataclass_built_from_results_is_refused() -> None:
    with pytest.raises(DefinitionError, match="is a Point made from results"):
        inputs(lambda r: Point(x=r.count, y=1))
    with pytest.raises(DefinitionError, match="is a Point made from results"):
        inputs(lambda r: {"points": [Point(x=1, y=r.count)]})
