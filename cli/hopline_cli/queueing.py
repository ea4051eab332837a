"""Looking at queues, and pausing and resuming them."""

from typing import Literal

from rich.text import Text

from hopline_cli import screen
from hopline_cli.answers import Queue
from hopline_cli.client import quoted
from hopline_cli.lists import Form, put_list
from hopline_cli.server import reached
from hopline_cli.table import Column
from hopline_cli.text import one_line
from hopline_cli.when import duration


async def list_of_queues(form: Form, server: str | None) -> None:
    """Print a list of queues."""
    async with reached(server) as api:
        queues: list[Queue] = (await api.get("/queues"))["queues"]
    columns = [
        Column(title="QUEUE"),
        Column(title="STATE", importance=8),
        Column(title="READY", importance=7, right=True),
        Column(title="LATER", importance=4, right=True),
        Column(title="IN FLIGHT", importance=6, right=True),
        Column(title="OLDEST", importance=5, right=True),
        Column(title="RATE", importance=3, right=True),
    ]
    put_list(form, queues, "name", columns, [_row(queue) for queue in queues], "no queues")


def _row(queue: Queue) -> tuple[str | Text, ...]:
    limit = queue["max_concurrent_dispatches"]
    return (
        one_line(queue["name"]),
        Text(queue["state"], "green" if queue["state"] == "running" else "yellow"),
        f"{queue['ready']:,}" + (f" +{queue['waiting_for_key']:,}" if queue["waiting_for_key"] else ""),
        f"{queue['scheduled']:,}",
        f"{queue['in_flight']:,}" + (f" of {limit:,}" if limit is not None else ""),
        _oldest(queue),
        _rate(queue),
    )


def _oldest(queue: Queue) -> str:
    oldest = queue["oldest_ready_seconds"]
    return "-" if oldest is None else duration(oldest)


def _rate(queue: Queue) -> str:
    rate = queue["max_dispatches_per_second"]
    return "-" if rate is None else f"{rate:g}/s"


async def show_queue(name: str, *, as_json: bool, server: str | None) -> None:
    """Print one queue."""
    async with reached(server) as api:
        queue: Queue = await api.get(f"/queues/{quoted(name)}")
    _put(queue, as_json=as_json)


async def order_queue(name: str, order: Literal["pause", "resume"], *, as_json: bool, server: str | None) -> None:
    """Pause or resume a queue, and print it as it is then."""
    async with reached(server) as api:
        queue: Queue = await api.post(f"/queues/{quoted(name)}/{order}")
    _put(queue, as_json=as_json)


def _put(queue: Queue, *, as_json: bool) -> None:
    if as_json:
        screen.put_json(queue)
        return
    limit, burst = queue["max_concurrent_dispatches"], queue["max_burst_size"]
    for title, value in (
        ("queue", one_line(queue["name"])),
        ("state", queue["state"]),
        ("ready", f"{queue['ready']:,}"),
        ("for keys", f"{queue['waiting_for_key']:,}"),
        ("later", f"{queue['scheduled']:,}"),
        ("in flight", f"{queue['in_flight']:,}" + (f" of {limit:,}" if limit is not None else "")),
        ("oldest", _oldest(queue)),
        ("rate", _rate(queue) + (f", bursts of {burst:,}" if burst is not None else "")),
    ):
        screen.put(f"{title:<11}{value}")
