"""``hopline locations``: where the queue service has queues, with gcloud's commands."""

import asyncio
from typing import Annotated

import typer

from hopline_cli import options, places
from hopline_cli.lazy import noun_app

app = noun_app("List and show the locations of queues.")

Location = Annotated[
    str,
    typer.Argument(metavar="LOCATION", help="Name of the location.", callback=options.named("location")),
]


@app.command("list")
def list_locations(
    project: places.Project = None,
    as_json: options.Json = False,
    json_lines: options.JsonLines = False,
    quiet: options.Quiet = False,
    server: options.Server = None,
) -> None:
    """List the locations that have queues, and local."""
    from hopline_cli import locating
    from hopline_cli.lists import Form

    form = Form(as_json=as_json, json_lines=json_lines, quiet=quiet)
    asyncio.run(locating.list_locations(project or places.LOCAL, form, server))


@app.command("describe")
def describe(location: Location, project: places.Project = None, server: options.Server = None) -> None:
    """Show a location as the Cloud Tasks API has it."""
    from hopline_cli import locating

    asyncio.run(locating.describe_location(project or places.LOCAL, location, server))
