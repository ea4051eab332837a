"""Paths into results, walked through the JSON schema of their types."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Optional

import pytest
from pydantic import BaseModel, ConfigDict, Field, computed_field
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from hopline import DefinitionError, step, workflow
from hopline.fit import disagreement
from hopline.schema import codec
from hopline.shape import Shape


class Address(BaseModel):
    city: str
    lines: list[str] = []


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str]


class Tree(BaseModel):
    label: str
    children: list["Tree"] = []
    parent: Optional["Tree"] = None


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel)
    first_name: str
    home_address: Address


@dataclass
class Line:
    sku: str
    quantity: int = 1


class Extra(TypedDict):
    note: str


class Corner(NamedTuple):
    x: int
    y: int


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    known: int


class Order(BaseModel):
    id: str
    address: Address
    maybe: Address | None
    pet: Cat | Dog
    tagged: Cat | Dog = Field(discriminator="kind")
    lines: list[Line]
    extra: Extra
    corner: Corner
    scores: dict[str, float]
    by_number: dict[int, Address]
    pair: tuple[int, Address]
    many: tuple[Address, ...]
    anything: Any
    open: Open
    loose: dict[str, Any]
    aliased: str = Field(alias="aliasedKey")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def display(self) -> str:
        return self.id


def order() -> Order: ...  # type: ignore[empty-body]


def tree() -> Tree: ...  # type: ignore[empty-body]


def camel() -> Camel: ...  # type: ignore[empty-body]


def walked(fn: Any, *path: str | int) -> list[str | int] | None:
    shape, keys = Shape.of(codec(fn).result_shape), []
    for key in path:
        place = shape.at(key)
        if place is None:
            return None
        keys.append(place[0])
        shape = place[1]
    return keys


@pytest.mark.parametrize(
    "path",
    [
        ("id",),
        ("address", "city"),
        ("address", "lines", 0),
        ("maybe", "city"),
        ("pet", "kind"),
        ("pet", "lives"),
        ("pet", "tricks", 0),
        ("tagged", "lives"),
        ("lines", 3, "quantity"),
        ("lines", -1, "sku"),
        ("extra", "note"),
        ("corner", 0),
        ("corner", -1),
        ("scores", "whatever"),
        ("pair", 0),
        ("pair", 1, "city"),
        ("pair", -1, "city"),
        ("many", 7, "city"),
        ("anything", "goes", 0, "down"),
        ("open", "known"),
        ("open", "unknown", "below"),
        ("loose", "a", "b"),
        ("display",),
    ],
)
def test_path_that_the_type_has(path: tuple[str | int, ...]) -> None:
    assert walked(order, *path) == list(path)


@pytest.mark.parametrize(
    "path",
    [
        ("idd",),
        ("id", 0),
        ("address", "town"),
        ("maybe", "town"),
        ("pet", "wings"),
        ("lines", "sku"),
        ("lines", 0, "price"),
        ("extra", "other"),
        ("corner", 2),
        ("corner", -3),
        ("scores", "a", "b"),
        ("pair", 2),
        ("pair", 0, "city"),
        ("display", "x"),
    ],
)
def test_path_that_the_type_does_not_have(path: tuple[str | int, ...]) -> None:
    assert walked(order, *path) is None


def test_recursive_type_has_paths_of_any_depth() -> None:
    deep: list[str | int] = ["children", 0]
    path = [*deep * 50, "parent", "label"]
    assert walked(tree, *path) == path
    assert walked(tree, *path[:-1], "lable") is None


def test_field_with_an_alias_is_found_under_its_key() -> None:
    assert walked(order, "aliased") == ["aliasedKey"]
    assert walked(camel, "first_name") == ["firstName"]
    assert walked(camel, "home_address", "city") == ["homeAddress", "city"]
    assert walked(camel, "firstName") == ["firstName"]


def test_whole_number_is_a_text_in_the_keys_of_an_object() -> None:
    assert walked(order, "by_number", 5, "city") == ["by_number", "5", "city"]


def test_names_of_aliased_fields_are_suggested_as_python_knows_them() -> None:
    @step
    def load() -> Camel: ...  # type: ignore[empty-body]

    @workflow
    def wired() -> Any:
        return load().frist_name  # type: ignore[attr-defined]

    with pytest.raises(DefinitionError, match="did you mean 'first_name'"):
        wired.compile()


def test_fields_are_listed_when_nothing_is_near() -> None:
    @step
    def load() -> Address: ...  # type: ignore[empty-body]

    @workflow
    def wired() -> Any:
        return load().zzz  # type: ignore[attr-defined]

    with pytest.raises(DefinitionError, match="it has 'city', 'lines'"):
        wired.compile()


def reason(have: Any, want: Any) -> str | None:
    def gives() -> None: ...
    def takes() -> None: ...

    gives.__annotations__["return"] = have
    takes.__annotations__["return"] = want
    return disagreement(Shape.of(codec(gives).result_shape), Shape.of(codec(takes).passed_result_shape))


@pytest.mark.parametrize(
    ("have", "want"),
    [
        (int, float),
        (float, int),
        (int, Any),
        (Any, int),
        (object, Order),
        (Address, Address),
        (Address, Address | None),
        (Address | None, Address),
        (Address | None, Address | str),
        (Cat, Cat | Dog),
        (list[Address], list[Address]),
        (list[Any], list[int]),
        (tuple[int, str], list[int]),
        (tuple[int, ...], list[int]),
        (dict[str, Any], Address),
        (Address, dict[str, Any]),
        (Tree, Tree),
        (list[Tree], list[Tree]),
        (Camel, Camel),
        (Open, Cat),
        (Line, Line),
        (Extra, Extra),
        (Literal["a"], str),
        (None, int | None),
        (bool | int, int),
    ],
)
def test_types_that_may_fit_are_not_refused(have: Any, want: Any) -> None:
    assert reason(have, want) is None


@pytest.mark.parametrize(
    ("have", "want", "expected"),
    [
        (int, str, "it is a number, not text"),
        (str, int, "it is text, not a number"),
        (None, int, "it is null, not a number"),
        (bool, int, "it is a boolean, not a number"),
        (Address, list[Address], "it is an object, not a list"),
        (list[Address], Address, "it is a list, not an object"),
        (list[Address], list[str], "in each element, it is an object, not text"),
        (Address, Cat, "it has no field 'kind'"),
        (list[list[Address]], list[list[Cat]], "in each element, in each element, it has no field 'kind'"),
        (int | None, str, "it is a number, not text"),
        (int, str | list[str], "it is a number, not a list or text"),
        (Address, Camel, "it has no field 'first_name'"),
    ],
)
def test_types_that_cannot_fit_are_told_apart(have: Any, want: Any, expected: str) -> None:
    assert reason(have, want) == expected


def test_field_of_another_type_is_named() -> None:
    class Other(BaseModel):
        city: int

    assert reason(Address, Other) == "in its field 'city', it is text, not a number"
