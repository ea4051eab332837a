"""Events: said, and listed."""

import json
from pathlib import Path
from typing import Any, TypedDict

from hopline_cli import screen
from hopline_cli.errors import UsageError
from hopline_cli.lists import Form, put_list
from hopline_cli.server import reached
from hopline_cli.table import Column
from hopline_cli.text import count, one_line
from hopline_cli.when import ago, unix
from hopline_engine import clock


class Event(TypedDict):
    """Something that happened."""

    name: str
    key: str
    payload: Any
    emitted_at: str


class Emitted(Event):
    """An event that is kept, and what it did."""

    created: bool
    runs: list[str]


async def emit_event(name: str, key: str, payload: str, *, as_json: bool, server: str | None) -> None:
    """Say that something happened; *payload* is JSON, or ``@`` and a file with it."""
    said = json_of(payload)
    async with reached(server) as api:
        emitted: Emitted = await api.post("/events", {"name": name, "key": key, "payload": said})
    if as_json:
        screen.put_json(emitted)
    else:
        screen.put(*emitted["runs"])
    which = f"{one_line(name)} with the key {one_line(key)}"
    if not emitted["created"]:
        screen.say(f"{which} was emitted at {emitted['emitted_at']} already; the first one is kept")
        return
    begun = f"; it began {count(len(emitted['runs']), 'run')}" if emitted["runs"] else ""
    screen.say(f"emitted {which}{begun}")


async def list_of_events(name: str | None, limit: int, form: Form, server: str | None) -> None:
    """Print the events that are kept."""
    async with reached(server) as api:
        events: list[Event] = (await api.get("/events", name=name, limit=limit))["events"]
    columns = [
        Column(title="NAME"),
        Column(title="KEY"),
        Column(title="EMITTED", importance=6),
        Column(title="PAYLOAD", importance=4),
    ]
    put_list(form, events, "key", columns, [_row(event) for event in events], "no events")


def _row(event: Event) -> tuple[str, ...]:
    time = event["emitted_at"]
    shown = ago(clock.now() - unix(time)) if screen.is_terminal() else time
    return one_line(event["name"]), one_line(event["key"]), shown, one_line(json.dumps(event["payload"]))


def json_of(text: str) -> Any:
    """Return the JSON that is given on the command line, or in the file that is named there after ``@``."""
    try:
        content = Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {text[1:]}: {error}") from None
    try:
        return json.loads(content)
    except ValueError as error:
        raise UsageError(f"{text!r} is no JSON: {error}", hint="""write it like: '{"tracking": "t1"}'""") from None
