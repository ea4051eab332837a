"""Expressions render to what a plain reading of them says, and what cannot be bound is a BindingError."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hopline_engine.core.binding import (
    BindingError,
    Literal,
    Ref,
    Secret,
    Text,
    Value,
    compile_expression,
    compile_object,
    decode_items,
    decoded,
)
from hopline_engine.core.definition import RequestSpec
from hopline_engine.core.requests import BoundRequest, compile_request
from tests.core.worlds import ref

VALUES: dict[str, Any] = {
    "$input": {"day": "2026-11-20", "top": 5, "deep": {"list": [1, {"x": "y"}], "none": None, "true": True}},
    "$item": "Kiel/Süd & Ost",
    "totals": {"rows": [{"shop": "Kiel", "sum": 12.5}, {"shop": "Ulm", "sum": 1e22}], "ok": False},
    "number": 10**30,
}
SECRETS = {"KEY": 's3cret "quoted"'}


class Values:
    """A scope over plain values."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def value(self, source: str) -> Value:
        return Value(msgspec.json.encode(self._values[source]))

    def whole(self, raw: bytes) -> bytes:
        return raw

    def secret(self, name: str) -> str:
        if name not in SECRETS:
            raise BindingError(f"secret {name!r} is not set")
        return SECRETS[name]


SCOPE = Values(VALUES)


def render(expression: Any) -> Any:
    return msgspec.json.decode(compile_expression(expression).render(SCOPE))


# --- against a plain reading ----------------------------------------------------------------------------------------


def plainly(expression: Any) -> Any:
    """Return the value of an expression, read in the plainest way."""
    if isinstance(expression, list):
        return [plainly(member) for member in expression]
    if not isinstance(expression, dict):
        return expression
    if "$literal" in expression:
        return expression["$literal"]
    if "$ref" in expression:
        return looked_up(expression)
    if "$secret" in expression:
        return SECRETS[expression["$secret"]]
    if "$text" in expression:
        return "".join(map(as_text, expression["$text"]))
    return {key: plainly(member) for key, member in expression.items()}


def looked_up(reference: dict[str, Any]) -> Any:
    found = VALUES[reference["$ref"]]
    for key in reference["path"]:
        found = found[key]
    return found


def as_text(part: Any) -> str:
    value = part if isinstance(part, str) else plainly(part)
    if isinstance(part, dict) and part.get("format"):
        return format(value, part["format"])
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def paths(value: Any) -> list[list[str | int]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [[], *([key, *path] for key, member in inside for path in paths(member))]


texts = st.text(st.characters(codec="utf-8"), max_size=8)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts)
data = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
names = texts.filter(lambda key: not key.startswith("$"))
references = st.sampled_from([ref(source, *path) for source, value in VALUES.items() for path in paths(value)])
secrets = st.just({"$secret": "KEY"})
formatted = st.sampled_from(
    [ref("totals", "rows", 0, "sum") | {"format": ".3f"}, ref("$input", "day") | {"format": ">12"}]
)
templates = st.builds(lambda parts: {"$text": parts}, st.lists(texts | references | secrets | formatted, max_size=4))
wrapped = st.builds(lambda value: {"$literal": value}, data)
expressions = st.recursive(
    scalars | references | secrets | templates | wrapped,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
)


@given(expressions)
@example({"$literal": {"$ref": "nowhere", "path": []}})
@example([{"$literal": {"$literal": {"$x": 1}}}, {"a": {"$literal": [{"$text": []}]}}])
def test_expression_renders_to_what_a_plain_reading_gives(expression: Any) -> None:
    rendered = compile_expression(expression).render(SCOPE)
    assert json.loads(rendered) == plainly(expression)


@given(expressions)
def test_sources_are_all_that_rendering_asks_for(expression: Any) -> None:
    asked: set[str] = set()

    class Watched(Values):
        def value(self, source: str) -> Value:
            asked.add(source)
            return super().value(source)

    compiled = compile_expression(expression)
    compiled.render(Watched(VALUES))
    assert set(compiled.sources()) == asked


@given(data)
def test_plain_data_is_encoded_once_when_it_is_compiled(value: Any) -> None:
    compiled = compile_expression({"$literal": value})
    assert isinstance(compiled, Literal)
    assert compile_expression({"a": {"$literal": value}}).render(SCOPE) == b'{"a":' + compiled.raw + b"}"


def test_constant_parts_are_folded() -> None:
    assert isinstance(compile_expression({"a": [1, {"b": "c"}], "d": {}}), Literal)
    assert not isinstance(compile_expression({"a": [1, ref("totals")]}), Literal)


# --- references -----------------------------------------------------------------------------------------------------


def test_whole_value_is_passed_on_byte_for_byte() -> None:
    raw = b'{"n": 1.50,  "big": 123456789012345678901234567890, "s": "\\u00e4"}'

    class Raw(Values):
        def value(self, source: str) -> Value:
            return Value(raw)

    assert compile_expression([ref("a")]).render(Raw({})) == b"[" + raw + b"]"


def test_value_is_decoded_once() -> None:
    value = Value(b'{"a": 1}')
    assert value.decoded is value.decoded


@pytest.mark.parametrize(
    ("path", "where"),
    [
        (["missing"], "['missing']"),
        (["rows", 2], "['rows'][2]"),
        (["rows", 0, "shop", "name"], "['rows'][0]['shop']['name']"),
        (["ok", 0], "['ok'][0]"),
        (["rows", "0"], "['rows']['0']"),
    ],
)
def test_missing_path_names_the_place(path: list[str | int], where: str) -> None:
    with pytest.raises(BindingError) as caught:
        render({"a": ref("totals", *path)})
    assert str(caught.value) == f"the value of 'totals' has no {where}"


def test_missing_path_does_not_show_the_value() -> None:
    with pytest.raises(BindingError) as caught:
        render(ref("totals", "rows", "secret"))
    assert "Kiel" not in str(caught.value)


# --- texts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Kiel", "Kiel"),
        (5, "5"),
        (2.5, "2.5"),
        (True, "true"),
        (None, "null"),
        ([1, "a"], '[1,"a"]'),
        ({"a": None}, '{"a":null}'),
    ],
)
def test_strings_stand_in_a_text_as_they_are_and_all_else_as_json(value: Any, text: str) -> None:
    assert (
        compile_expression({"$text": ["<", ref("a"), ">"]}).render(Values({"a": value}))
        == json.dumps(f"<{text}>", ensure_ascii=False).encode()
    )


@pytest.mark.parametrize(
    ("value", "spec"),
    [("Kiel", ".2f"), ([1], ">5"), (None, "d"), (2_000_000, "c"), (-1, "c"), (10**400, ".2f"), (1.5, "d")],
)
def test_format_that_does_not_fit_the_value_is_a_binding_error(value: Any, spec: str) -> None:
    expression = compile_expression({"$text": [ref("a") | {"format": spec}]})
    with pytest.raises(BindingError, match="cannot format the value of 'a'"):
        expression.render(Values({"a": value}))


def test_secret_that_is_not_set_is_a_binding_error() -> None:
    with pytest.raises(BindingError, match="'OTHER' is not set"):
        render({"$text": ["Bearer ", {"$secret": "OTHER"}]})


def test_secret_is_not_in_the_expression() -> None:
    compiled = compile_expression({"key": {"$secret": "KEY"}})
    assert "s3cret" not in repr(compiled)
    assert compiled.render(SCOPE) == json.dumps({"key": SECRETS["KEY"]}, separators=(",", ":")).encode()


# --- arguments and items --------------------------------------------------------------------------------------------


def test_arguments_keep_their_order() -> None:
    assert compile_object({"b": 1, "a": ref("$input", "top")}).render(SCOPE) == b'{"b":1,"a":5}'


@given(st.lists(data, max_size=5))
def test_items_of_a_list_are_its_members(values: list[Any]) -> None:
    items = decode_items(json.dumps(values, indent=1).encode())
    assert [json.loads(item) for item in items] == values


def test_what_is_nested_too_deep_to_be_read_is_a_binding_error() -> None:
    deep = msgspec.Raw(b"[" * 100_000 + b"]" * 100_000)
    with pytest.raises(BindingError, match="cannot be read"):
        decoded(compile_expression([ref("deep")]), Values({"deep": deep}))


@pytest.mark.parametrize("raw", [b"null", b"5", b'"text"', b"{}", b"true"])
def test_what_is_no_list_has_no_items(raw: bytes) -> None:
    with pytest.raises(BindingError, match="not a list"):
        decode_items(raw)


# --- requests -------------------------------------------------------------------------------------------------------


def bind(scope: Values = SCOPE, **request: Any) -> BoundRequest:
    spec = msgspec.convert({"method": "GET", "url": "http://shop.example/"} | request, RequestSpec)
    return compile_request(spec).bind(scope)


def test_url_that_is_plain_stays_as_it_is() -> None:
    assert bind(url="http://shop.example/a%20b?x=1&y=ü").url == "http://shop.example/a%20b?x=1&y=ü"


def test_first_part_of_a_url_is_a_base_and_stays_as_it_is() -> None:
    scope = Values({"base": "http://shop.example:8080/v1", "id": "1"})
    assert (
        bind(scope, url={"$text": [ref("base"), "/orders/", ref("id")]}).url == "http://shop.example:8080/v1/orders/1"
    )
    assert bind(scope, url=ref("base")).url == "http://shop.example:8080/v1"


@pytest.mark.parametrize("value", [".", ".."])
def test_value_in_a_url_can_not_climb_up_the_path(value: str) -> None:
    scope = Values({"v": value})
    with pytest.raises(BindingError, match="path of a URL"):
        bind(scope, url={"$text": ["http://shop.example/orders/", ref("v"), "/lines"]})
    query = bind(scope, url={"$text": ["http://shop.example/orders?name=", ref("v")]}).url
    assert query == f"http://shop.example/orders?name={value}"


@given(texts.filter(lambda text: text not in {".", ".."}))
def test_value_in_a_url_can_not_leave_its_place(value: str) -> None:
    url = bind(
        Values({"v": value}), url={"$text": ["http://shop.example/orders/", ref("v"), "/lines?x=", ref("v")]}
    ).url
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc, parts.fragment) == ("http", "shop.example", "")
    segments = parts.path.split("/")
    assert [segments[1], unquote(segments[2]), segments[3]] == ["orders", value, "lines"]
    assert unquote(parts.query.removeprefix("x=")) == value


def test_secret_in_a_url_is_encoded_too() -> None:
    assert bind(url={"$text": ["http://shop.example/?key=", {"$secret": "KEY"}]}).url.endswith("s3cret%20%22quoted%22")


@given(st.dictionaries(texts.filter(bool), texts, max_size=3))
def test_parameters_arrive_as_they_were_given(params: dict[str, str]) -> None:
    url = bind(Values({"p": params}), params={name: ref("p", name) for name in params if not name.startswith("$")}).url
    sent = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    assert sent == {name: value for name, value in params.items() if not name.startswith("$")}


@pytest.mark.parametrize(
    ("value", "query"),
    [
        (None, ""),
        ([], ""),
        (["a", None, 2], "?q=a&q=2"),
        (True, "?q=true"),
        (2.5, "?q=2.5"),
        ({"a": [1]}, "?q=%7B%22a%22%3A%5B1%5D%7D"),
        ("a b&c", "?q=a+b%26c"),
        ({"$text": ["day-", ref("$input", "day")]}, "?q=day-2026-11-20"),
    ],
)
def test_parameter_of_each_kind(value: Any, query: str) -> None:
    assert bind(params={"q": value}).url == f"http://shop.example/{query}"


@pytest.mark.parametrize(
    ("url", "bound"),
    [
        ("http://shop.example/?a=1", "http://shop.example/?a=1&q=2"),
        ("http://shop.example/#top", "http://shop.example/?q=2"),
        ("http://shop.example/?a=1#top", "http://shop.example/?a=1&q=2"),
    ],
)
def test_parameters_are_added_to_the_query_of_the_url(url: str, bound: str) -> None:
    assert bind(url=url, params={"q": 2}).url == bound


def test_headers_are_texts() -> None:
    bound = bind(headers={"Authorization": {"$text": ["Bearer ", {"$secret": "KEY"}]}, "X-Day": ref("$input", "day")})
    assert bound.headers == (("Authorization", 'Bearer s3cret "quoted"'), ("X-Day", "2026-11-20"))


@pytest.mark.parametrize("character", [*map(chr, range(9)), *map(chr, range(10, 32)), "\x7f"])
def test_header_with_a_control_character_is_refused(character: str) -> None:
    with pytest.raises(BindingError, match="header 'X-Key' has control characters"):
        bind(Values({"v": f"a{character}b"}), headers={"X-Key": ref("v")})


def test_header_may_have_a_tab() -> None:
    assert bind(Values({"v": "a\tb"}), headers={"X-Key": ref("v")}).headers == (("X-Key", "a\tb"),)


def test_body_is_sent_only_when_there_is_one() -> None:
    assert bind().body is None
    assert bind(json=None, has_json=True).body == b"null"
    assert bind(json={"day": ref("$input", "day")}, has_json=True).body == b'{"day":"2026-11-20"}'


def test_sources_of_a_request_are_those_of_all_its_parts() -> None:
    template = compile_request(
        RequestSpec(
            method="POST",
            url={"$text": ["http://x/", ref("a")]},
            params={"q": ref("b")},
            headers={"X-Key": ref("c")},
            json=[ref("d")],
            has_json=True,
        )
    )
    assert set(template.sources()) == {"a", "b", "c", "d"}


# --- what is malformed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression",
    [
        {"$ref": None},
        {"$ref": "a", "path": None},
        {"$ref": "a", "path": ["b", None]},
        {"$ref": "a", "path": [], "more": 1},
        {"$ref": "a", "$secret": "b"},
        {"$ref": "a", "format": 5},
        {"$text": "abc"},
        {"$text": [5]},
        {"$text": [{}]},
        {"$text": [["a"]]},
        {"$text": [{"a": 1}]},
        {"$text": [{"$text": []}]},
        {"$secret": 5},
        {"$literal": 1, "a": 2},
        {"$other": 1},
        {"a": [{"$other": 1}]},
    ],
)
def test_malformed_marker_is_a_value_error(expression: Any) -> None:
    with pytest.raises(ValueError, match=r"\$|text|path|format"):
        compile_expression(expression)


@pytest.mark.parametrize("url", [5, None, [], {}, {"a": ref("b")}])
def test_url_and_header_that_are_no_text_are_refused(url: Any) -> None:
    with pytest.raises(ValueError, match="must be a text"):
        compile_request(RequestSpec(method="GET", url=url))
    with pytest.raises(ValueError, match="must be a text"):
        compile_request(RequestSpec(method="GET", url="http://x/", headers={"X-Key": url}))


def test_parts_of_a_text_are_strings_references_and_secrets() -> None:
    compiled = compile_expression({"$text": ["a", ref("b", 0), {"$secret": "C"}]})
    assert compiled == Text(("a", Ref("b", (0,)), Secret("C")))
