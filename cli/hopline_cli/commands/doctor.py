"""``hopline doctor``: what is wrong with this installation, and what to do about it."""

import asyncio

import typer

from hopline_cli import options
from hopline_cli.lazy import verb_app

app = verb_app()


@app.command()
def doctor(as_json: options.Json = False, server: options.Server = None) -> None:
    """Look at the store, the server, its workers and queues, and at every rule that must always hold.

    Asks the server if one is up; without one, looks into the store and changes nothing.
    Exit code 1 when something is wrong.
    """
    from hopline_cli.doctor import examine

    raise typer.Exit(asyncio.run(examine(as_json=as_json, server=server)))
