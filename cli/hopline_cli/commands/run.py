"""``hopline run``: a workflow from a file, now, to its result."""

from typing import Annotated

import typer

from hopline_cli import options
from hopline_cli.lazy import verb_app

app = verb_app()


@app.command()
def run(
    target: Annotated[
        str,
        typer.Argument(
            metavar="FILE[:WORKFLOW]",
            help="Workflow file; or the name of a workflow a server knows.",
            callback=options.named("workflow"),
        ),
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="name=value...", help="Inputs; name=@file.json reads a file, name:=json is JSON."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", help="Idempotency key: a second run with it is the first.", show_default=False),
    ] = None,
    priority: Annotated[
        int,
        typer.Option("--priority", min=-5, max=5, help="Added to the priorities of its steps.", metavar="N"),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole run, not only its result.")] = False,
    no_live: options.NoLive = False,
    detach: Annotated[bool, typer.Option("--detach", help="Start the run at a server, print its id, leave.")] = False,
    server: options.Server = None,
) -> None:
    """Run a workflow, watch it, print its result on stdout.

    A server that is up does the work; without one, this process is the server until the run has ended.
    Exit code 0 when the run succeeded, 3 when it failed or was cancelled.
    """
    from hopline_cli.inputs import parse
    from hopline_cli.running import Order
    from hopline_cli.starting import Wish, split_target
    from hopline_cli.starting import run as start_and_follow

    file, workflow = split_target(target)
    wish = Wish(target=target, workflow=workflow, inputs=parse(inputs or []), key=key, priority=priority)
    order = Order(file=file, server=server, live=not no_live, as_json=as_json, wait=not detach)
    from hopline_engine import event_loop

    raise typer.Exit(event_loop.run(start_and_follow(order, wish)))
