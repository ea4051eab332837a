"""URLs of databases: what they say, and that nothing secret of them is ever shown."""

import doctest
from types import ModuleType

import pytest

from hopline_engine import database_url
from hopline_engine.database_url import DatabaseUrlError, parse
from hopline_engine.settings import Settings, SettingsError
from hopline_engine.store.postgres import trouble

SHOWN = {
    "postgresql://me:secret@db.example/hopline": "postgresql://me@db.example/hopline",
    "postgres://me:secret@db.example:5433/hopline?sslmode=require": "postgresql://me@db.example:5433/hopline",
    "POSTGRESQL://me:s%40cret%2F@[::1]:5432/hopline": "postgresql://me@[::1]:5432/hopline",
    "postgresql://a:1,b:2/hopline?user=me&password=secret": "postgresql://me@a:1,b:2/hopline",
    "postgresql:///hopline?host=/run/postgresql": "postgresql:///run/postgresql/hopline",
    "postgresql://db.example": "postgresql://db.example/",
}


@pytest.mark.parametrize("url", SHOWN)
def test_a_url_is_shown_without_password_and_options(url: str) -> None:
    settings = Settings.load(store=url)

    assert settings.is_on_postgres
    assert settings.store_shown == SHOWN[url]
    for text in (repr(settings), str(settings), repr(parse(url))):
        assert "secret" not in text.replace("secrets_", "").replace("/run/secrets", "")
        assert "s%40cret" not in text


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:sec/ret@db/hopline",
        "postgresql://me:12/ret@db/hopline",
        "postgresql://me:12#ret@db/hopline",
        "postgresql://me:12?ret@db/hopline",
        "postgresql://me:ret@db:99999999/hopline",
        "postgresql://me:ret@[db/hopline",
        "postgresql://me:ret@db/hop@line",
        "postgresql+asyncpg://me:ret@db/hopline",
        "mysql://me:ret@db/hopline",
        "postgresql://db/hopline?statement_cache_size=5",
    ],
)
def test_a_url_that_reads_otherwise_than_it_was_meant_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.load(store=url)

    told = f"{refused.value} {refused.value.hint}"
    assert "store" in told
    assert "ret" not in told.replace("%", "").replace("secret", "")


@pytest.mark.parametrize("path", ["", "hopline.db", "sqlite:///here/hopline.db", "/a b/c:d"])
def test_other_stores_are_files(path: str) -> None:
    settings = Settings.load(store=path)

    assert not settings.is_on_postgres
    assert settings.store_shown == str(settings.store_path)


def test_passwords_are_taken_out_of_what_others_say() -> None:
    url = parse("postgresql://me:s%40cret@db/hopline?sslpassword=other")

    assert url.redacted("s@cret, s%40cret and other") == "***, *** and ***"


def test_our_own_option_is_not_sent_to_the_server() -> None:
    url = parse("postgresql://db/hopline?statement_cache_size=0&sslmode=require")

    assert not url.caches_statements
    assert url.dsn == "postgresql://db/hopline?sslmode=require"


def test_a_url_without_a_value_for_an_option_is_refused() -> None:
    with pytest.raises(DatabaseUrlError, match="question mark"):
        parse("postgresql://db/hopline?sslmode")


@pytest.mark.parametrize("module", [database_url, trouble])
def test_examples_in_docstrings_are_true(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0
