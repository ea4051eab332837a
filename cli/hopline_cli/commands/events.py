"""``hopline events``: say that something happened, and see what did."""

import asyncio
from typing import Annotated

import typer

from hopline_cli import options
from hopline_cli.lazy import noun_app

app = noun_app("Emit and list events.")

EventName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the event.", callback=options.named("event"))]


@app.command("emit")
def emit(
    name: EventName,
    payload: Annotated[str, typer.Argument(metavar="[JSON]", help="What the event says; @FILE reads it.")] = "null",
    key: Annotated[
        str,
        typer.Option("--key", help="Which one it is: waits and runs are found by it.", callback=options.named("key")),
    ] = ...,  # type: ignore[assignment]  # typer's way to say that an option must be given
    as_json: options.Json = False,
    server: options.Server = None,
) -> None:
    """Say that something happened: steps that wait for it go on, and workflows that it starts begin a run.

    Of each name and key the first event is kept; a second one changes nothing.
    """
    from hopline_cli.happening import emit_event

    asyncio.run(emit_event(name, key, payload, as_json=as_json, server=server))


@app.command("list")
def list_events(
    name: Annotated[str | None, typer.Option("--name", help="Only events of this name.", show_default=False)] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="At most so many.")] = 50,
    as_json: options.Json = False,
    json_lines: options.JsonLines = False,
    quiet: options.Quiet = False,
    server: options.Server = None,
) -> None:
    """List the events that are kept, the newest first."""
    from hopline_cli.happening import list_of_events
    from hopline_cli.lists import Form

    form = Form(as_json=as_json, json_lines=json_lines, quiet=quiet)
    asyncio.run(list_of_events(name, limit, form, server))
