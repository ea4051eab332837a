"""Looking at the locations of the queue service."""

from typing import Any

from hopline_cli import screen
from hopline_cli.lists import Form, put_list
from hopline_cli.server import reached
from hopline_cli.table import Column
from hopline_cli.text import one_line

_COLUMNS = [Column(title="NAME"), Column(title="FULL_NAME")]


async def list_locations(project: str, form: Form, server: str | None) -> None:
    """Print the locations of a project."""
    async with reached(server) as api:
        answer = await api.cloud("GET", f"/v2/projects/{project}/locations")
    locations: list[dict[str, Any]] = answer.get("locations", [])
    rows = [(one_line(each["locationId"]), one_line(each["name"])) for each in locations]
    put_list(form, locations, "locationId", _COLUMNS, rows, "no locations")


async def describe_location(project: str, location: str, server: str | None) -> None:
    """Print a location as the API has it."""
    async with reached(server) as api:
        screen.put_json(await api.cloud("GET", f"/v2/projects/{project}/locations/{location}"))
