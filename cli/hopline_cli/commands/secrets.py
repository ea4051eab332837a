"""``hopline secrets``: values that requests need, and that nobody sees again."""

import asyncio
from typing import Annotated

import typer

from hopline_cli import options
from hopline_cli.lazy import noun_app

app = noun_app("Keep values that requests need and nobody sees.")

SecretName = Annotated[str, typer.Argument(metavar="NAME", help="As in secret(...).", callback=options.named("secret"))]


@app.command("set")
def set_secret(name: SecretName, as_json: options.Json = False, server: options.Server = None) -> None:
    """Keep a secret in the store, encrypted; its value is read from stdin, or asked for on a terminal."""
    from hopline_cli.confiding import keep

    asyncio.run(keep(name, as_json=as_json, server=server))


@app.command("list")
def list_secrets(
    as_json: options.Json = False,
    json_lines: options.JsonLines = False,
    quiet: options.Quiet = False,
    server: options.Server = None,
) -> None:
    """List the secrets in the store, and say what workflows need that has no value."""
    from hopline_cli.confiding import list_of_secrets
    from hopline_cli.lists import Form

    asyncio.run(list_of_secrets(Form(as_json=as_json, json_lines=json_lines, quiet=quiet), server))


@app.command("rm")
def remove(
    name: SecretName, as_json: options.Json = False, server: options.Server = None, yes: options.Yes = False
) -> None:
    """Forget a secret; steps that need it fail from then on."""
    from hopline_cli.confiding import forget

    asyncio.run(forget(name, as_json=as_json, server=server, yes=yes))


@app.command("rotate")
def rotate(as_json: options.Json = False, server: options.Server = None) -> None:
    """Encrypt all secrets with the first of the keys; then the others can be taken away."""
    from hopline_cli.confiding import encrypt_again

    asyncio.run(encrypt_again(as_json=as_json, server=server))
