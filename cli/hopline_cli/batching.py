"""Many tasks at once, from a file, in gcloud's words; as many calls as the API's limits need."""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TextIO

from hopline_cli import screen
from hopline_cli.errors import CliError, UsageError
from hopline_cli.places import QueuePlace
from hopline_cli.policies import json_in
from hopline_cli.server import reached
from hopline_cli.text import printable
from hopline_engine import clock

Json = dict[str, Any]
Call = Callable[[list[Any]], Awaitable[Json]]

CREATED_AT_ONCE = 100
DELETED_AT_ONCE = 1000
"""What the API takes in one call."""
SOME_FAILED = 2
"""gcloud's exit code when a part was done."""


def tasks_in(file: str, place: QueuePlace) -> list[Json]:
    """Return the tasks in a file, named in full where they have names.

    Raises:
        UsageError: the file holds no list of tasks.
    """
    tasks = json_in(file)
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, dict) for task in tasks):
        raise UsageError(f"{file} holds no list of tasks", hint='write [{"httpRequest": {"url": "http://..."}}, ...]')
    return [{**task, **_named(task, place)} for task in tasks]


async def create_tasks(
    place: QueuePlace, tasks: list[Json], failed_file: TextIO | None, *, as_json: bool, server: str | None
) -> None:
    """Add tasks, and say which could not be added.

    Raises:
        CliError: some could not be.
    """
    async with reached(server) as api:

        async def create(some: list[Json]) -> Json:
            requests = [{"parent": place.name, "task": task} for task in some]
            body = {"requests": requests, "requestId": clock.token()}
            return dict(await api.cloud("POST", f"/v2/{place.name}/tasks:batchCreate", body))

        made, failed = await _in_parts(tasks, CREATED_AT_ONCE, create)
    records = [{"index": at, "status": status, "task": tasks[at]} for at, status in sorted(failed.items())]
    if failed_file is not None:
        failed_file.write(json.dumps(records, indent=2) + "\n")
    if as_json:
        screen.put_json({"tasks": made, "failed": records})
    _tell("created", "Created", len(tasks), failed)


async def delete_tasks(place: QueuePlace, tasks: Sequence[str], *, as_json: bool, server: str | None) -> None:
    """Delete tasks, and say which could not be deleted.

    Raises:
        CliError: some could not be.
    """
    names = [task if "/" in task else f"{place.name}/tasks/{task}" for task in tasks]
    async with reached(server) as api:

        async def delete(some: list[str]) -> Json:
            body = {"names": some, "requestId": clock.token()}
            return dict(await api.cloud("POST", f"/v2/{place.name}/tasks:batchDelete", body))

        _, failed = await _in_parts(names, DELETED_AT_ONCE, delete)
    if as_json:
        screen.put_json({"failed": [{"name": names[at], "status": status} for at, status in sorted(failed.items())]})
    _tell("deleted", "Deleted", len(names), failed)


def _named(task: Json, place: QueuePlace) -> Json:
    name = task.get("name")
    return {"name": f"{place.name}/tasks/{name}"} if isinstance(name, str) and name and "/" not in name else {}


async def _in_parts(given: Sequence[Any], size: int, call: Call) -> tuple[list[Json], dict[int, Json]]:
    """Make as many calls as are needed; return what was made, and for the index of each that was not its status."""
    made: list[Json] = []
    failed: dict[int, Json] = {}
    for begin in range(0, len(given), size):
        operation = await call(list(given[begin : begin + size]))
        made += operation.get("response", {}).get("tasks", [])
        for at, status in operation["metadata"].get("failedRequests", {}).items():
            failed[begin + int(at)] = status
    return made, failed


def _tell(done: str, began: str, asked: int, failed: dict[int, Json]) -> None:
    for at, status in sorted(failed.items()):
        screen.say(printable(f"task {at}: {status.get('message', '')}"))
    if len(failed) < asked:
        screen.say(f"{began} {asked - len(failed)} of {asked} tasks.")
    if failed:
        code = SOME_FAILED if len(failed) < asked else 1
        raise CliError("not-all-done", f"{len(failed)} of {asked} tasks could not be {done}", exit_code=code)
