"""Orders to runs: watch, retry, fork, cancel, pause, resume."""

import re
from typing import Any, Literal

from hopline_cli import screen
from hopline_cli.answers import FINAL_RUN_STATES, Run, RunDetail, ServedWorkflow
from hopline_cli.client import quoted
from hopline_cli.errors import CliError, ExitCode, UsageError
from hopline_cli.inputs import bind_some, parse
from hopline_cli.running import Order, carry_out, tell_outcome
from hopline_cli.server import Place, load_settings, reached, running_server
from hopline_cli.text import one_line


async def watch_run(ref: str, order: Order) -> int:
    """Watch a run to its end and return the exit code."""
    if order.file is None and not await _is_server_up(order.server):
        return await _tell_at_rest(ref, order)

    async def find(place: Place, _: list[str]) -> Run:
        run: Run = await place.api.get(f"/runs/{quoted(ref)}")
        return run

    return await carry_out(order, find)


async def _is_server_up(server: str | None) -> bool:
    settings = load_settings(server_url=server)
    return settings.server_url is not None or await running_server(settings) is not None


async def _tell_at_rest(ref: str, order: Order) -> int:
    """Tell the outcome of a run that has ended; one that has not will not move, as no engine runs."""
    async with reached(order.server) as api:
        run: RunDetail = await api.get(f"/runs/{quoted(ref)}")
        if run["state"] in FINAL_RUN_STATES:
            return await tell_outcome(api, run, order, own=False)
    raise CliError(
        "no-engine",
        f"{run['id']} is {run['state']}, but no server is up that could go on with it",
        hint=f"go on with it here: hopline runs watch {run['id']} FILE",
        exit_code=ExitCode.NO_SERVER,
    )


async def retry_run(ref: str, items: list[str], order: Order) -> int:
    """Begin a new run that keeps what has succeeded, but for *items*; watch it when the order says so."""
    body = {"items": [name for text in items for name in elements(text)]} if items else None
    if order.file is not None:

        async def begin(place: Place, _: list[str]) -> Run:
            run: Run = await place.api.post(f"/runs/{quoted(ref)}/retry", body)
            screen.say(f"{run['id']} retries {run['retry_of']}")
            return run

        return await carry_out(order, begin)
    async with reached(order.server) as api:
        run: Run = await api.post(f"/runs/{quoted(ref)}/retry", body)
    _put_run(run, as_json=order.as_json)
    screen.say(f"{run['id']} retries {run['retry_of']}; watch it with: {await _watch_command(run, order.server)}")
    return ExitCode.OK


async def _watch_command(run: Run, server: str | None) -> str:
    """Return how a run is watched; without a server, whoever watches it has to go on with it."""
    return f"hopline runs watch {run['id']}" + ("" if await _is_server_up(server) else " FILE")


async def fork_run(ref: str, step: str, words: list[str], *, as_json: bool, server: str | None) -> None:
    """Begin a new run that makes a step, and what follows it, again."""
    assignments = parse(words)
    async with reached(server) as api:
        run: Run = await api.get(f"/runs/{quoted(ref)}")
        given: dict[str, Any] = {}
        if assignments:
            version: ServedWorkflow = await api.get(f"/workflows/{quoted(run['workflow'])}/versions/{run['digest']}")
            given = bind_some(assignments, version["parameters"])
        new: Run = await api.post(f"/runs/{quoted(run['id'])}/fork", {"step": step, "input": given})
    _put_run(new, as_json=as_json)
    watch = await _watch_command(new, server)
    screen.say(f"{new['id']} makes {run['id']} again from {one_line(step)}; watch it with: {watch}")


_DONE = {"cancel": "cancelled", "pause": "paused", "resume": "resumed"}


async def order_run(
    ref: str, order: Literal["cancel", "pause", "resume"], *, as_json: bool, server: str | None
) -> None:
    """Cancel, pause or resume a run."""
    async with reached(server) as api:
        run: Run = await api.post(f"/runs/{quoted(ref)}/{order}")
    _put_run(run, as_json=as_json)
    if order == "cancel" and run["state"] == "cancelling":
        screen.say(f"{run['id']} of {run['workflow']} undoes what it did before it ends; cancel it again to end it now")
    else:
        screen.say(f"{_DONE[order]} {run['id']} of {run['workflow']}")


_ELEMENTS = re.compile(r"(?P<step>[^\[\]]+)\[(?P<items>[0-9]{1,18}(-[0-9]{1,18})?(,[0-9]{1,18}(-[0-9]{1,18})?)*)\]")
_MOST_ELEMENTS = 10_000


def elements(text: str) -> list[str]:
    """Return the names of elements of a mapped step.

    Raises:
        UsageError: *text* names none.

    >>> elements("totals[3,5-7]")
    ['totals[3]', 'totals[5]', 'totals[6]', 'totals[7]']
    """
    match = _ELEMENTS.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} names no elements of a step", hint="write STEP[3], or STEP[3,5-7]")
    found: list[str] = []
    for part in match["items"].split(","):
        first, _, last = part.partition("-")
        wanted = range(int(first), int(last or first) + 1)
        if not wanted:
            raise UsageError(f"{part} in {text!r} ends before it begins", hint=f"write {last}-{first}")
        if len(found) + len(wanted) > _MOST_ELEMENTS:
            raise UsageError(f"{text!r} names more than {_MOST_ELEMENTS} elements", hint="name fewer at a time")
        found += [f"{match['step']}[{item}]" for item in wanted]
    return found


def _put_run(run: Run, *, as_json: bool) -> None:
    if as_json:
        screen.put_json(run)
    else:
        screen.put(run["id"])
