"""Arguments and results between JSON and Python, as the worker uses them."""

import json
import math
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from hopline import Request, http
from hopline.canonical_schema import tidied
from hopline.errors import ArgumentError, DefinitionError, HoplineError, ResultError
from hopline.schema import arguments, codec, dump_result, parameters_schema, result_schema


class Shop(BaseModel):
    """A shop; this sentence is no part of the version."""

    id: str = Field(title="The id", description="of the shop", examples=["a"])
    opened: date
    owner_name: str = Field(default="?", alias="ownerName")


@dataclass
class Point:
    x: float
    y: float = 0.0


class Colour(Enum):
    RED = "red"


def everything(
    shop: Shop,
    points: list[Point],
    day: date,
    colour: Colour,
    mode: Literal["a", "b"] = "a",
    at: datetime | None = None,
    _private: Annotated[int, Field(ge=0)] = 3,
) -> dict[str, Shop]:
    return {}


BODY = {
    "shop": {"id": "a", "opened": "2026-01-02", "ownerName": "Ann"},
    "points": [{"x": 1}],
    "day": "2026-11-20",
    "colour": "red",
}


def test_arguments_get_their_types() -> None:
    assert arguments(everything, json.dumps(BODY).encode()) == {
        "shop": Shop(id="a", opened=date(2026, 1, 2), ownerName="Ann"),
        "points": [Point(1.0)],
        "day": date(2026, 11, 20),
        "colour": Colour.RED,
    }
    more = {**BODY, "mode": "b", "at": "2026-11-20T06:00:00Z", "_private": 4}
    given_more = arguments(everything, json.dumps(more).encode())
    assert given_more["at"] == datetime(2026, 11, 20, 6, tzinfo=UTC)
    assert (given_more["mode"], given_more["_private"]) == ("b", 4)


def test_fields_are_taken_by_alias_or_by_name() -> None:
    by_name = {**BODY, "shop": {"id": "a", "opened": "2026-01-02", "owner_name": "Ann"}}
    assert arguments(everything, json.dumps(by_name).encode())["shop"].owner_name == "Ann"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"day": "monday"}, "day: "),
        ({"colour": "green"}, "colour: "),
        ({"points": [{"y": 1}]}, "points.0.x: Field required"),
        ({"unknown": 1}, "unknown: Extra inputs are not permitted"),
        ({"_private": -1}, "_private: "),
    ],
)
def test_arguments_that_do_not_fit_name_the_place(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        arguments(everything, json.dumps({**BODY, **change}).encode())
    assert str(caught.value).startswith("everything(): ")
    assert message in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"shop":', b"\xff", b"{}"])
def test_body_that_is_no_object_of_arguments_is_an_argument_error(body: bytes) -> None:
    with pytest.raises(ArgumentError):
        arguments(everything, body)


def test_function_without_parameters_takes_an_empty_object() -> None:
    def nothing() -> None: ...

    assert arguments(nothing, b"{}") == {}
    with pytest.raises(ArgumentError):
        arguments(nothing, b'{"a":1}')


def typed(kind: Any) -> Any:
    def gives() -> None: ...

    gives.__annotations__["return"] = kind
    return gives


def test_result_is_written_as_its_type_says() -> None:
    shop = Shop(id="a", opened=date(2026, 1, 2), ownerName="Ann")
    assert dump_result(everything, {"x": shop}) == b'{"x":{"id":"a","opened":"2026-01-02","ownerName":"Ann"}}'
    assert dump_result(typed(list[Point]), [Point(1)]) == b'[{"x":1.0,"y":0.0}]'
    assert dump_result(typed(None), None) == b"null"
    assert dump_result(typed(Decimal), Decimal("1.10")) == b'"1.10"'
    assert dump_result(typed(Any), {"a": Colour.RED}) == b'{"a":"red"}'


def test_result_of_one_step_is_an_argument_of_the_next() -> None:
    def takes(shops: dict[str, Shop]) -> None: ...

    shops = {"x": Shop(id="a", opened=date(2026, 1, 2), ownerName="Ann")}
    body = b'{"shops":' + dump_result(everything, shops) + b"}"
    assert arguments(takes, body) == {"shops": shops}


def test_json_of_the_right_form_is_a_result_too() -> None:
    assert dump_result(typed(Shop), {"id": "a", "opened": "2026-01-02"}).startswith(b'{"id":"a"')


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (int, "a", "returned what it does not declare: .*; it returned a str"),
        (int, None, "returned what it does not declare: .*; it returned None"),
        (None, 1, "returned what it does not declare"),
        (list[Shop], [{"id": "a"}], "0.opened: Field required"),
        (float, math.nan, "NaN or an infinity"),
        (Any, {"a": [math.inf]}, "NaN or an infinity"),
        (list[float | None], [None, -math.inf], "NaN or an infinity"),
        (str, "a\0b", "NUL"),
        (Any, {"a\0": 1}, "NUL"),
        (str, "a\\\0", "NUL"),
        (str, "\ud800", "JSON cannot say"),
        (Any, object(), "JSON cannot say"),
        (bytes, b"\xff", "JSON cannot say"),
    ],
)
def test_result_that_cannot_be_stored_is_a_result_error(kind: Any, value: Any, message: str) -> None:
    with pytest.raises(ResultError, match=message):
        dump_result(typed(kind), value)


def test_model_changed_into_another_type_is_a_result_error() -> None:
    shop = Shop(id="a", opened=date(2026, 1, 2))
    shop.id = 5  # type: ignore[assignment]
    with pytest.raises(ResultError, match="JSON cannot say"):
        dump_result(typed(Shop), shop)


def test_result_inside_itself_is_a_result_error() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(ResultError):
        dump_result(typed(Any), circle)


def test_texts_that_only_look_like_trouble_are_results() -> None:
    for text in ("\\u0000", "null", "NaN", "Infinity", "a\\\\u0000", ""):
        assert json.loads(dump_result(typed(Any), {text: [text, None]})) == {text: [text, None]}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec="utf-16")),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
        max_leaves=10,
    )
)
def test_any_value_is_stored_exactly_or_refused(value: Any) -> None:
    try:
        data = dump_result(typed(Any), value)
    except ResultError:
        with pytest.raises((ValueError, UnicodeError)):
            text = json.dumps(value, allow_nan=False, ensure_ascii=False).encode().decode()
            if "\\u0000" in text:
                raise ValueError("NUL") from None
        return
    assert json.loads(data) == value


def test_schema_says_nothing_that_only_documents() -> None:
    assert parameters_schema(everything)["$defs"]["Shop"] == {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "opened": {"type": "string", "format": "date"},
            "ownerName": {"type": "string", "default": "?"},
        },
        "required": ["id", "opened"],
    }


def test_fields_called_like_documentation_stay() -> None:
    class Page(BaseModel):
        title: str
        description: str
        examples: list[str]
        required: bool

    schema = result_schema(typed(Page))
    assert sorted(schema["properties"]) == ["description", "examples", "required", "title"]
    assert schema["required"] == ["description", "examples", "required", "title"]


def test_classes_of_one_name_are_numbered_and_not_named_by_module() -> None:
    def make(field: str) -> type[BaseModel]:
        class Row(BaseModel):
            __annotations__ = {field: int}

        return Row

    one, two = make("a"), make("b")
    schema = result_schema(typed(dict[Literal["x", "y"], tuple[one, two]]))  # type: ignore[valid-type]
    assert sorted(schema["$defs"]) == ["Row", "Row_2"]
    assert __name__.split(".")[-1] not in json.dumps(schema)


def test_tidying_twice_is_tidying_once() -> None:
    schema = parameters_schema(everything)
    assert tidied(schema, keep_names=False) == schema


def test_default_of_a_field_that_looks_like_a_reference_is_refused() -> None:
    class Odd(BaseModel):
        value: dict[str, str] = {"$ref": "#/elsewhere"}

    with pytest.raises(DefinitionError, match="has no JSON schema"):
        result_schema(typed(Odd))


def test_numbers_that_the_type_writes_as_text_are_results() -> None:
    class Measured(BaseModel):
        model_config = ConfigDict(ser_json_inf_nan="strings")
        value: float

    assert dump_result(typed(list[Measured]), [Measured(value=math.nan)]) == b'[{"value":"NaN"}]'


def test_results_are_described_as_they_are_written() -> None:
    class Amount(BaseModel):
        value: Decimal

    assert result_schema(typed(Amount))["properties"]["value"]["type"] == "string"


def test_answer_of_an_http_step_is_described_as_others_may_write_it() -> None:
    class Amount(BaseModel):
        value: Decimal

    @http
    def ask() -> Request[Amount]:
        return http.get("https://a.example.com")

    assert "anyOf" in result_schema(ask.fn)["properties"]["value"]


def test_request_of_nothing_has_the_schema_of_null() -> None:
    assert result_schema(typed(Request[None])) == {"type": "null"}


def test_codec_is_made_once_for_each_function() -> None:
    assert codec(everything) is codec(everything)


def test_union_with_a_part_that_json_cannot_say_is_refused() -> None:
    class Opaque:
        pass

    class Loose(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        value: int | Opaque

    with pytest.raises(DefinitionError, match="has no JSON schema"):
        result_schema(typed(Loose))


def test_default_of_a_field_that_json_cannot_say_is_refused() -> None:
    class Loose(BaseModel):
        value: Any = object()

    with pytest.raises(DefinitionError, match="has no JSON schema"):
        result_schema(typed(Loose))


def test_every_error_is_one_of_hopline() -> None:
    for error in (ArgumentError, ResultError, DefinitionError):
        assert issubclass(error, HoplineError)
