"""Where secrets are looked for, and how they are taken out of what targets say."""

import base64
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hopline_engine.queue.redacting import SHORTEST, Redactor
from hopline_engine.queue.secrets import SecretMissingError, Secrets, from_environment, in_definition

pytestmark = pytest.mark.anyio

VALUE = 'c4nary/"tökén"+%&<7>'


async def stored(names: object) -> dict[str, str]:
    return {"BOTH": "of the store", "KEPT": "kept"}


async def test_a_bare_name_is_looked_for_in_variables_then_files_then_the_store(tmp_path: Path) -> None:
    (tmp_path / "BOTH").write_text("of the file\n")
    (tmp_path / "FILED").write_text("filed")
    everywhere = Secrets({"BOTH": "of the variable"}, folder=tmp_path, stored=stored)
    assert await everywhere.values(["BOTH", "FILED", "KEPT"]) == {
        "BOTH": "of the variable",
        "FILED": "filed",
        "KEPT": "kept",
    }
    assert await Secrets({}, folder=tmp_path, stored=stored).values(["BOTH"]) == {"BOTH": "of the file"}


async def test_a_name_with_a_source_is_looked_for_there_alone(tmp_path: Path) -> None:
    (tmp_path / "BOTH").write_text("of the file\n")
    everywhere = Secrets({"BOTH": "of the variable"}, folder=tmp_path, stored=stored)
    names = ["env:BOTH", "file:BOTH", f"file:{tmp_path}/BOTH", "store:BOTH"]
    assert list((await everywhere.values(names)).values()) == [
        "of the variable",
        "of the file",
        "of the file",
        "of the store",
    ]
    for missing, said in (
        ("env:KEPT", "set HOPLINE_SECRET_KEPT"),
        ("file:KEPT", f"put it into {tmp_path}/KEPT"),
        ("store:NONE", "hopline secrets set NONE"),
    ):
        with pytest.raises(SecretMissingError, match=said):
            await everywhere.values([missing])


async def test_files_outside_the_folder_of_secrets_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("the engine's own")
    inside = tmp_path / "secrets"
    inside.mkdir()
    secrets = Secrets({}, folder=inside)
    for name in ("file:../key", f"file:{tmp_path}/key", f"file:{inside}/../key", "file:.."):
        with pytest.raises(SecretMissingError):
            await secrets.values([name])


def test_variables_that_are_not_meant_for_it_are_no_secrets() -> None:
    assert from_environment({"HOPLINE_SECRET_A": "1", "HOPLINE_KEY": "2", "PATH": "3"}) == {"A": "1"}


def test_names_in_a_definition_are_found_but_not_in_literals() -> None:
    request = {"headers": {"A": {"$text": ["Bearer ", {"$secret": "T"}]}}, "json": {"$literal": {"$secret": "X"}}}
    assert list(in_definition([request])) == ["T"]


@pytest.mark.parametrize(
    "echoed",
    [
        VALUE,
        quote(VALUE),
        quote(VALUE, safe="").lower(),
        base64.b64encode(VALUE.encode()).decode(),
        json.dumps(VALUE),
        json.dumps(json.dumps({"deep": VALUE})),
        VALUE.encode().hex(),
    ],
)
def test_a_secret_is_taken_out_in_the_forms_in_which_it_is_echoed(echoed: str) -> None:
    redactor = Redactor({"TOKEN": VALUE})
    assert redactor.text(f"before {echoed} after").count("[secret TOKEN]") == 1
    clean = json.loads(redactor.body(json.dumps({"a": [echoed, 1, None], echoed: True}).encode()))
    assert clean["a"][0].count("[secret TOKEN]") == 1
    assert clean["a"][1:] == [1, None]
    assert all("[secret TOKEN]" in key for key in clean if key != "a")


@given(st.text(max_size=20), st.text(max_size=20), st.text(st.characters(codec="ascii"), min_size=12, max_size=40))
def test_no_encoding_of_a_text_around_a_secret_keeps_it(before: str, after: str, value: str) -> None:
    encoded = base64.b64encode(f"{before}{value}{after}".encode()).decode()
    left = Redactor({"TOKEN": value}).text(encoded)
    assert "[secret TOKEN]" in left


def test_escapes_of_single_characters_hide_nothing() -> None:
    body = b'{"echo": "s\\u0065cret-value"}'
    assert json.loads(Redactor({"T": "secret-value"}).body(body)) == {"echo": "[secret T]"}


def test_what_holds_no_secret_stays_as_it_is_to_the_byte() -> None:
    redactor = Redactor({"T": "secret-value"})
    for body in (b'{ "a" : 1.50 }', b'{"a": "\\u0065"}', b"\xff\xfe", b"", b"plain"):
        assert redactor.body(body) == body


def test_numbers_and_bodies_that_are_no_json_are_looked_through_too() -> None:
    redactor = Redactor({"PIN": "48151623"})
    assert json.loads(redactor.body(b'{"pin": 48151623, "n": 481516234}')) == {"pin": "[secret PIN]", "n": 481516234}
    assert redactor.body(b"<p>48151623</p>\xff") == b"<p>[secret PIN]</p>\xff"


def test_secrets_too_short_to_be_told_from_other_text_are_left() -> None:
    assert Redactor({"T": "a" * (SHORTEST - 1)}).text("aaaaaaa") == "aaaaaaa"
