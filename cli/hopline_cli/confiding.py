"""Secrets: kept, listed and forgotten; and which ones files need that have no value here."""

import os
import sys
from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypedDict

import typer

from hopline_cli import screen
from hopline_cli.checking import Checked, Warned
from hopline_cli.client import api_over, quoted
from hopline_cli.errors import UsageError
from hopline_cli.lists import Form, put_list
from hopline_cli.server import load_settings, reached, server_found
from hopline_cli.table import Column
from hopline_cli.text import count, listing, one_line

if TYPE_CHECKING:
    from hopline_engine.settings import Settings


class Secret(TypedDict):
    """A secret that the store keeps."""

    name: str
    created_at: str
    updated_at: str
    used_by: list[str]


class Missing(TypedDict):
    """A secret that workflows need, and that has no value."""

    message: str
    used_by: list[str]


async def keep(name: str, *, as_json: bool, server: str | None) -> None:
    """Keep a secret whose value is on stdin, or asked for."""
    value = _value()
    async with reached(server) as api:
        kept: Secret = await api.post("/secrets", {"name": name, "value": value})
    if as_json:
        screen.put_json(kept)
    else:
        screen.say(f"secret {one_line(kept['name'])} is kept in the store, encrypted")


async def list_of_secrets(form: Form, server: str | None) -> None:
    """Print the secrets in the store, and say what is missing."""
    async with reached(server) as api:
        found = await api.get("/secrets")
    secrets: list[Secret] = found["secrets"]
    columns = [Column(title="NAME"), Column(title="SET", importance=6), Column(title="USED BY", importance=4)]
    rows = [(one_line(each["name"]), each["updated_at"], listing(each["used_by"], 4)) for each in secrets]
    put_list(form, secrets, "name", columns, rows, "no secret is kept in the store")
    say_missing(found["missing"])


def say_missing(missing: Sequence[Missing]) -> None:
    """Say which secrets workflows need that have no value."""
    for each in missing:
        screen.say(f"needed by {listing(each['used_by'], 4)}: {one_line(each['message'])}")


async def unset(found: Checked, server: str | None) -> list[Warned]:
    """Return a warning for each secret that workflows in files need and that has no value where this command runs."""
    from hopline_engine.queue.secrets import SecretMissingError, Secrets, from_environment, in_definition

    settings = load_settings(server_url=server)
    secrets = Secrets(from_environment(os.environ), folder=settings.secrets_dir, stored=partial(_stored, settings))
    places = {workflow["name"]: workflow for workflow in found["workflows"]}
    warnings: list[Warned] = []
    for definition in found["definitions"]:
        place = places.get(str(definition["name"]))
        if place is None:
            continue
        for name in dict.fromkeys(in_definition(definition)):
            try:
                await secrets.values([name])
            except SecretMissingError as error:
                warned = Warned(workflow=place["name"], message=str(error), file=place["file"], line=place["line"])
                warnings.append(warned)
    return warnings


async def _stored(settings: "Settings", names: Collection[str]) -> dict[str, str]:
    """Return something for those of the names that the store has, if a server is there to ask; values stay there."""
    url = await server_found(settings)
    if url is None:
        return {}
    async with api_over(url, settings.api_token) as api:
        kept: list[Secret] = (await api.get("/secrets"))["secrets"]
    return {each["name"]: "" for each in kept if each["name"] in names}


async def forget(name: str, *, as_json: bool, server: str | None, yes: bool) -> None:
    """Forget a secret, after asking."""
    if not yes:
        typer.confirm(f"Secret {name} will be forgotten. Continue?", abort=True, err=True)
    async with reached(server) as api:
        gone: Secret = await api.delete(f"/secrets/{quoted(name)}")
    if as_json:
        screen.put_json(gone)
    else:
        users = f"; needed by {listing(gone['used_by'], 4)}" if gone["used_by"] else ""
        screen.say(f"secret {one_line(name)} is gone{users}")


async def encrypt_again(*, as_json: bool, server: str | None) -> None:
    """Encrypt with the first key what another one encrypted."""
    async with reached(server) as api:
        done = await api.post("/secrets/rotate")
    if as_json:
        screen.put_json(done)
    else:
        screen.say(f"{count(done['secrets'], 'secret')} encrypted again; all are under the first key now")


def _value() -> str:
    """Return what is to be kept; never taken from the command line, which others on this machine can read."""
    if sys.stdin.isatty():
        return str(typer.prompt("Value", hide_input=True, confirmation_prompt=True, err=True))
    try:
        return sys.stdin.read().removesuffix("\n")
    except UnicodeDecodeError:
        raise UsageError("the value on stdin is not UTF-8 text", hint="encode it, for example with base64") from None
