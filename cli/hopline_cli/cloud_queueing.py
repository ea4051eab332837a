"""Orders about queues that go to the queue service, in gcloud's words."""

from typing import Any, Literal

from hopline_cli import screen
from hopline_cli.errors import UsageError
from hopline_cli.places import QueuePlace
from hopline_cli.queue_settings import body_of
from hopline_cli.server import reached
from hopline_cli.text import printable

Json = dict[str, Any]

BETA = "/v2beta3/"
PULL = "/v2beta2/"
"""The versions of the API that know statistics, and pull queues."""


async def create_queue(
    place: QueuePlace, given: dict[str, Any], kind: Literal["push", "pull"], *, as_json: bool, server: str | None
) -> None:
    """Make a queue."""
    body, _ = body_of(given)
    version = "/v2/"
    if kind == "pull":
        body, version = {**_for_pull(body), "pullTarget": {}}, PULL
    async with reached(server) as api:
        queue = await api.cloud("POST", f"{version}{place.parent}/queues", {"name": place.name, **body})
    _tell(queue, f"Created queue {place.shown}.", as_json=as_json)


async def update_queue(place: QueuePlace, given: dict[str, Any], *, as_json: bool, server: str | None) -> None:
    """Change a queue."""
    body, mask = body_of(given)
    if not mask:
        raise UsageError("Must specify at least one field to update.")
    async with reached(server) as api:
        await api.cloud("GET", f"/v2/{place.name}")  # a patch would make it
        queue = await api.cloud("PATCH", f"/v2/{place.name}", body, updateMask=",".join(mask))
    _tell(queue, f"Updated queue {place.shown}.", as_json=as_json)


async def describe_queue(place: QueuePlace, server: str | None) -> None:
    """Print a queue as the API has it."""
    async with reached(server) as api:
        screen.put_json(await api.cloud("GET", f"{BETA}{place.name}"))


async def show_stats(place: QueuePlace, server: str | None) -> None:
    """Print how a queue is doing."""
    async with reached(server) as api:
        queue = await api.cloud("GET", f"{BETA}{place.name}", readMask="stats")
    screen.put_json(queue.get("stats", {}))


async def order_queue(
    place: QueuePlace, verb: Literal["pause", "resume", "purge"], *, as_json: bool, server: str | None
) -> None:
    """Pause, resume or purge a queue."""
    async with reached(server) as api:
        queue = await api.cloud("POST", f"/v2/{place.name}:{verb}")
    done = {"pause": "Paused", "resume": "Resumed", "purge": "Purged"}[verb]
    _tell(queue, f"{done} queue {place.shown}.", as_json=as_json)


async def delete_queue(place: QueuePlace, *, as_json: bool, server: str | None) -> None:
    """Delete a queue with its tasks."""
    async with reached(server) as api:
        answer = await api.cloud("DELETE", f"/v2/{place.name}")
    _tell(answer, f"Deleted queue {place.shown}.", as_json=as_json)


def _for_pull(body: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a pull queue, which says in another way that attempts are unlimited."""
    if body.keys() - {"retryConfig"}:
        raise UsageError("a pull queue has --max-attempts and --max-retry-duration and no other settings")
    retry = dict(body.get("retryConfig", {}))
    if retry.get("maxAttempts") == -1:
        del retry["maxAttempts"]
        retry["unlimitedAttempts"] = True
    return {"retryConfig": retry} if retry else {}


def _tell(answer: Json, done: str, *, as_json: bool) -> None:
    if as_json:
        screen.put_json(answer)
    else:
        screen.say(printable(done))
