"""``hopline queues``: how full they are, how fast they may go, pause and resume."""

import asyncio
from typing import Annotated

import typer

from hopline_cli import options
from hopline_cli.lazy import noun_app

app = noun_app("List, show, pause and resume queues.")

Name = Annotated[str, typer.Argument(metavar="QUEUE", help="Name of the queue.")]


@app.command("list")
def list_queues(
    as_json: options.Json = False,
    json_lines: options.JsonLines = False,
    quiet: options.Quiet = False,
    server: options.Server = None,
) -> None:
    """List queues, by name."""
    from hopline_cli.lists import Form
    from hopline_cli.queueing import list_of_queues

    asyncio.run(list_of_queues(Form(as_json=as_json, json_lines=json_lines, quiet=quiet), server))


@app.command("show")
def show(name: Name, as_json: options.Json = False, server: options.Server = None) -> None:
    """Show one queue."""
    from hopline_cli.queueing import show_queue

    asyncio.run(show_queue(name, as_json=as_json, server=server))


@app.command("pause")
def pause(name: Name, as_json: options.Json = False, server: options.Server = None) -> None:
    """Send nothing more from a queue; what was sent goes on."""
    from hopline_cli.queueing import order_queue

    asyncio.run(order_queue(name, "pause", as_json=as_json, server=server))


@app.command("resume")
def resume(name: Name, as_json: options.Json = False, server: options.Server = None) -> None:
    """Send from a paused queue again."""
    from hopline_cli.queueing import order_queue

    asyncio.run(order_queue(name, "resume", as_json=as_json, server=server))
