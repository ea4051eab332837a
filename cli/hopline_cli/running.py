"""A run from its start to its outcome: a server, a worker, the view, and what is said at the end.

When another command's server goes away while its run is watched, this process becomes the server and goes on.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from shlex import quote
from typing import Any, TypeVar

from hopline_cli import screen
from hopline_cli.answers import Attempt, Failure, Run, RunDetail
from hopline_cli.client import Api, is_up, quoted
from hopline_cli.errors import CliError, ExitCode, ServerGone
from hopline_cli.follow import LinesView, follow, view
from hopline_cli.interrupts import Interrupted, Interrupts
from hopline_cli.served import workflows_served
from hopline_cli.server import Place, found_or_become
from hopline_cli.text import printable
from hopline_cli.workers import Job, supervised

LOG_TAIL_LINES = 20
STUCK_SECONDS = 1.0
"""How long a worker may take to end when no run is open: what still runs in it is of no use to anybody."""
CHECK_SECONDS = 2.0
"""How often a server is looked after while the worker has nothing to report."""

_OF_ANOTHER_RUN = re.compile(r"(?:step (?P<step>\S+) of run (?P<run>r_\w+): )+")
"""How the failure of a run that a step started is told; the last pair is the innermost."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How a run is to be carried out and watched."""

    file: str | None
    """File or folder to serve the steps from; ``None`` when a server has workers of its own."""
    server: str | None = None
    live: bool = True
    as_json: bool = False
    wait: bool = True


Start = Callable[[Place, list[str]], Awaitable[Run]]
"""Begins a run, or finds one; called once, when a server and a worker are there. Gets the workflows of the file."""


async def carry_out(order: Order, start: Start) -> int:
    """Start a run, follow it to its end, tell its outcome, and return the exit code."""
    interrupts = Interrupts()
    started: list[Run] = []
    lines = LinesView()

    async def start_once(place: Place, workflows: list[str]) -> Run:
        busy.stop()
        if not started:
            started.append(await start(place, workflows))
        return started[0]

    with interrupts.caught(), screen.busy("starting") as busy:
        while True:
            async with found_or_become(order.server) as place:
                try:
                    return await _at(place, order, start_once, lines, interrupts)
                except Interrupted:
                    _tell_detached(place, order, started[0]["id"] if started else None)
                    return ExitCode.INTERRUPTED
                except ServerGone as gone:
                    if gone.is_order_lost or place.own or place.named:
                        raise
                    screen.say(f"the server at {place.url} is gone; going on without it")


async def _at(place: Place, order: Order, start: Start, lines: LinesView, interrupts: Interrupts) -> int:
    async with _worker(place, order, interrupts) as workflows:
        run = await start(place, workflows)
        if not order.wait:
            _tell_started(run, as_json=order.as_json)
            return ExitCode.OK
        async with view(lines, live=order.live) as shown:
            following = follow(place.api, run["id"], shown, place.patience_seconds)
            ended = await interrupts.unless_asked(following)
        return await tell_outcome(place.api, ended, order, own=place.own)


@asynccontextmanager
async def _worker(place: Place, order: Order, interrupts: Interrupts) -> AsyncIterator[list[str]]:
    """Yield the workflows of the file, which is served until the block ends."""
    if order.file is None:
        yield []
        return
    if not place.own and (served := await workflows_served(place.api, order.file)) is not None:
        screen.say(f"{printable(order.file)} is served at {place.url} already, by a worker that follows its changes")
        yield served
        return
    async with supervised(
        Job(url=place.url, paths=[order.file], token=place.token, schedules=False), screen.say_of_worker
    ) as supervisor:
        interrupts.at_once = [supervisor.kill]
        workflows = await interrupts.unless_asked(_while_up(place.url, supervisor.load()))
        try:
            yield [workflow["name"] for workflow in workflows]
        except Interrupted:
            screen.say("stopping: steps that run are finished first; Ctrl-C again quits at once")
            raise
        if place.own and not (await place.api.get("/runs", state="running", limit=1))["runs"]:
            supervisor.patience_seconds = STUCK_SECONDS


async def _while_up(url: str, work: Awaitable[T]) -> T:
    """Return the outcome of *work*, which waits for the server at *url* and may do so for ever.

    Raises:
        ServerGone: the server went away first.
    """
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=CHECK_SECONDS))[0]:
            if not await is_up(url):
                raise ServerGone(url, "it stopped")
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _tell_started(run: Run, *, as_json: bool) -> None:
    if as_json:
        screen.put_json(run)
    else:
        screen.put(run["id"])
    screen.say(f"started {run['id']}; watch it with: hopline runs watch {run['id']}")


def _tell_detached(place: Place, order: Order, run_id: str | None) -> None:
    file = f" {printable(quote(order.file))}" if order.file else ""
    if run_id is None:
        screen.say("interrupted; no run was started")
    elif place.own:
        screen.say(f"detached; {run_id} is kept and goes on where it was with: hopline runs watch {run_id}{file}")
        screen.say("or together with all other open runs with: hopline dev" + (file or " PATH"))
    else:
        screen.say(f"detached; {run_id} goes on at {place.url}; come back with: hopline runs watch {run_id}{file}")


async def tell_outcome(api: Api, run: RunDetail, order: Order, *, own: bool) -> int:
    """Print the result of an ended run, or why it has none, and return the exit code."""
    if order.as_json:
        screen.put_json({name: value for name, value in run.items() if name != "steps"})
    if run["state"] == "succeeded":
        if not order.as_json:
            screen.put_json(await whole_result(api, run))
        return ExitCode.OK
    again = f"hopline runs retry {run['id']}" + (f" {quote(order.file)}" if own and order.file else "")
    if run["state"] == "cancelled":
        screen.complain(CliError("run-cancelled", f"{run['id']} was cancelled", hint=f"run what is left: {again}"))
        return ExitCode.RUN_FAILED
    await _tell_failure(api, run, again)
    return ExitCode.RUN_FAILED


async def whole_result(api: Api, run: RunDetail) -> Any:
    """Return the result of a run; what it only refers to is asked for."""
    if '"$blob"' not in json.dumps(run["result"]):
        return run["result"]
    return (await api.get(f"/runs/{quoted(run['id'])}/output"))["result"]


async def _tell_failure(api: Api, run: RunDetail, again: str) -> None:
    failure: Failure = run["error"] or {}
    where, failed = _innermost(run, failure)
    step = (failure.get("step") or "").partition("[")[0]
    what = ": ".join(str(part) for part in (failure.get("type"), failure.get("message")) if part)
    error = CliError("run-failed", f"step {failure.get('step')} failed: {what}" if step else what or "the run failed")
    if step:
        error.hints.append(
            f"each attempt and what it printed: hopline runs logs {where} --step {failed.partition('[')[0]}"
        )
    error.hints.append(f"when the cause is gone, run what is left: {again}")
    for title, text in await _evidence(api, where, failed, failure):
        screen.say(f"── {title} ──")
        screen.say(printable(text.rstrip()))
    screen.complain(error)


def _innermost(run: RunDetail, failure: Failure) -> tuple[str, str]:
    """Return the run and the step that failed first: when that was in a run which a step started, those."""
    step = failure.get("step") or ""
    found = None
    if any(one["id"] == step.partition("[")[0] and one["kind"] == "workflow" for one in run["steps"]):
        found = _OF_ANOTHER_RUN.match(failure.get("message") or "")
    return (found["run"], found["step"]) if found else (run["id"], step)


async def _evidence(api: Api, run_id: str, step: str, failure: Failure) -> list[tuple[str, str]]:
    """Return what the failed step left: the end of its log, and its traceback."""
    found = []
    last = await _last_failed_attempt(api, run_id, step) if step else None
    if last is not None and last["logs"]:
        log = last["logs"].rstrip().splitlines()
        cut = f", last {LOG_TAIL_LINES} lines" if len(log) > LOG_TAIL_LINES else ""
        found.append((f"log of {step}, attempt {last['attempt']}{cut}", "\n".join(log[-LOG_TAIL_LINES:])))
    traceback = failure.get("traceback")
    if traceback:
        found.append((f"traceback of {step}", traceback))
    return found


async def _last_failed_attempt(api: Api, run_id: str, step: str) -> Attempt | None:
    name, _, rest = step.partition("[")
    item = int(rest[:-1]) if rest[:-1].isdigit() else None
    try:
        attempts: list[Attempt] = (await api.get(f"/runs/{quoted(run_id)}/logs", step=name))["attempts"]
    except CliError:
        return None  # the failure itself is known and more important
    failed = [one for one in attempts if one["state"] != "succeeded" and (item is None or one["item"] == item)]
    return failed[-1] if failed else None
