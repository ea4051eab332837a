"""``name=value`` becomes the input that the workflow's schema describes, or a message that says what is wrong."""

import json
from pathlib import Path
from typing import Any

import pytest

from hopline_cli.errors import ExitCode, UsageError
from hopline_cli.inputs import bind, parameter_list, parse, type_name

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "folder": {"type": "string"},
        "top": {"type": "integer", "default": 5},
        "ratio": {"type": "number", "default": 0.5},
        "deep": {"type": "boolean", "default": False},
        "names": {"type": "array", "items": {"type": "string"}, "default": []},
        "day": {"type": "string", "format": "date", "default": "2026-01-01"},
        "label": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        "code": {"anyOf": [{"type": "integer"}, {"type": "string"}], "default": 0},
        "colour": {"$ref": "#/$defs/Colour"},
        "point": {"$ref": "#/$defs/Point"},
        "anything": {},
    },
    "required": ["folder"],
    "$defs": {
        "Colour": {"enum": ["red", "green"], "type": "string"},
        "Point": {"type": "object", "properties": {"x": {"type": "integer"}}},
    },
}


def bound(*words: str) -> dict[str, Any]:
    given = bind(parse(["folder=data", *words]), SCHEMA)
    assert given.pop("folder") == "data"
    return given


@pytest.mark.parametrize(
    "word, value",
    [
        ("top=7", 7),
        ("ratio=0.25", 0.25),
        ("deep=true", True),
        ('names=["a","b"]', ["a", "b"]),
        ("day=2026-11-20", "2026-11-20"),
        ("label=5", "5"),
        ("label:=null", None),
        ("label=null", "null"),
        ("code=5", 5),
        ("code=5a", "5a"),
        ("colour=red", "red"),
        ('point={"x":1}', {"x": 1}),
        ("anything=1.5", 1.5),
        ("anything=plain words", "plain words"),
        ("anything=NaN", "NaN"),
        ('anything:="5"', "5"),
        ("label=a=b", "a=b"),
        ("label=", ""),
        ("label=two\nlines", "two\nlines"),
    ],
)
def test_value_is_read_as_its_parameter_says(word: str, value: Any) -> None:
    name = word.partition("=")[0].removesuffix(":")
    assert bound(word) == {name: value}


def test_text_of_a_text_parameter_is_never_taken_for_json() -> None:
    assert bind(parse(["folder=123"]), SCHEMA) == {"folder": "123"}
    assert bind(parse(["folder=true"]), SCHEMA) == {"folder": "true"}


def test_file_is_read_as_json_or_as_text_as_the_parameter_says(tmp_path: Path) -> None:
    file = tmp_path / "names.json"
    file.write_text('["x", "y"]')
    assert bound(f"names=@{file}") == {"names": ["x", "y"]}
    assert bound(f"label=@{file}") == {"label": '["x", "y"]'}


def test_file_that_is_not_there_is_named_with_the_way_around(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read nowhere\.json for names: No such file") as raised:
        parse(["names=@nowhere.json"])
    assert "names:=" in raised.value.hints[0]


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "binary"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        parse([f"names=@{file}"])


@pytest.mark.parametrize("word", ["folder", "=x", "1a=x", "a b=x", "--x=1", ""])
def test_word_without_name_and_value_is_refused(word: str) -> None:
    with pytest.raises(UsageError, match="name=value"):
        parse([word])


def test_name_given_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="folder is given twice"):
        parse(["folder=a", "folder=b"])


def test_unknown_parameter_names_the_nearest_and_lists_all() -> None:
    with pytest.raises(UsageError, match=r"no parameter foldr; did you mean folder\?") as raised:
        bind(parse(["foldr=x"]), SCHEMA)
    assert raised.value.exit_code == ExitCode.USAGE
    assert "folder (text, needed), top (integer, default 5)" in raised.value.hints[0]


def test_missing_parameters_are_all_named() -> None:
    schema = {"properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a", "b"]}
    with pytest.raises(UsageError, match="missing parameters a, b"):
        bind([], schema)


def test_forced_json_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="top is not valid JSON"):
        bound("top:=[1,")


def test_workflow_without_parameters_says_so() -> None:
    with pytest.raises(UsageError, match="no parameter x") as raised:
        bind(parse(["x=1"]), {"properties": {}})
    assert raised.value.hints == ["it takes no parameters"]


def test_types_are_told_in_words() -> None:
    told = {name: type_name(schema, SCHEMA) for name, schema in SCHEMA["properties"].items()}
    assert told["label"] == "text or null"
    assert told["names"] == "list of text"
    assert told["day"] == "date"
    assert told["colour"] == '"red" or "green"'
    assert told["point"] == "object"
    assert told["anything"] == "any JSON"
    assert json.dumps(told)
    assert parameter_list({}) == "it takes no parameters"
