"""Orders to many runs at once: those of which something is true, after a look at how many they are."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Literal, get_args

import typer

from hopline_cli import screen
from hopline_cli.answers import Run, RunDetail
from hopline_cli.client import Api, quoted
from hopline_cli.errors import CliError, ExitCode, UsageError
from hopline_cli.lists import Form
from hopline_cli.looking import Filter, pages, put_runs
from hopline_cli.server import reached
from hopline_cli.spans import per_second
from hopline_cli.text import one_line
from hopline_engine import clock

Order = Literal["retry", "cancel"]
Name = Literal["state", "workflow", "step", "since"]

MOST_RUNS = 1_000_000
_STATES = {"retry": ("failed", "cancelled"), "cancel": ("running", "paused", "undoing", "cancelling")}
_DONE = {"retry": "retried", "cancel": "cancelled"}
_OPEN = frozenset({"queued", "scheduled", "running", "waiting"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What is true of the runs that are meant."""

    state: str
    workflow: str | None = None
    step: str | None = None
    """The step that failed; of a run that has not ended, one that is open."""
    since: str | None = None


def check_alone(ref: str | None, where: str | None, *, file: str | None = None, items: list[str] | None = None) -> None:
    """Check that an order is either for one run or for those of a condition."""
    if where is None:
        raise UsageError("which run is not said", hint="name one, or say of which runs: --where state=failed,since=2h")
    if ref is not None or file is not None or items:
        raise UsageError("--where is for many runs; a run, a file or items are for one", hint="leave one of them out")


def condition(order: Order, text: str) -> Condition:
    """Return the condition that *text* writes as ``name=value,name=value``.

    Raises:
        UsageError: it is not written so, or no run in that state can be ordered so.

    >>> condition("retry", "workflow=sales,since=2h")
    Condition(state='failed', workflow='sales', step=None, since='2h')
    """
    given: dict[str, str] = {}
    for part in text.split(","):
        name, sign, value = (piece.strip() for piece in part.partition("="))
        if not sign or not value or name not in get_args(Name) or name in given:
            raise UsageError(
                f"--where cannot be read at {part!r}", hint=f"write NAME=VALUE with {', '.join(get_args(Name))}"
            )
        given[name] = value
    states = _STATES[order]
    state = given.pop("state", states[0])
    if state not in states:
        raise UsageError(f"no run that is {state} can be {_DONE[order]}", hint=f"state is one of {', '.join(states)}")
    return Condition(state=state, **given)


def pause_of(rate: str | None) -> float:
    """Return the seconds between two orders.

    Raises:
        UsageError: the rate is not a number per s, m or h.

    >>> pause_of("50/s"), pause_of("30/m"), pause_of(None)
    (0.02, 2.0, 0.0)
    """
    return 0.0 if rate is None else 1 / per_second(rate)


async def carry_out(
    order: Order, where: str | None, rate: str | None, *, dry_run: bool, yes: bool, server: str | None
) -> int:
    """Order all runs of a condition, after asking; return the exit code."""
    assert where is not None
    wanted, pause = condition(order, where), pause_of(rate)
    async with reached(server) as api:
        runs = await _runs(api, order, wanted)
        if dry_run:
            put_runs(Form(as_json=False, json_lines=False, quiet=False), runs, Filter(limit=MOST_RUNS))
        if dry_run or not runs:
            screen.say(f"{_count(runs)} would be {_DONE[order]}")
            return ExitCode.OK
        if not yes:
            typer.confirm(f"{_count(runs)} will be {_DONE[order]}. Continue?", abort=True, err=True)
        return await _order_all(api, order, runs, pause)


async def _runs(api: Api, order: Order, wanted: Condition) -> list[Run]:
    """Return the runs that are meant; of those to be retried, the ones that were not yet."""
    retried = False if order == "retry" else None
    listed = Filter(state=wanted.state, workflow=wanted.workflow, since=wanted.since, retried=retried, limit=MOST_RUNS)
    found = await pages(api, listed)
    return [run for run in found if wanted.step is None or await _has(api, run, wanted.step)]


async def _has(api: Api, run: Run, step: str) -> bool:
    if run["ended_at"] is not None and run["error"] is not None:
        return run["error"].get("step") == step
    detail: RunDetail = await api.get(f"/runs/{quoted(run['id'])}")
    states = _OPEN if run["ended_at"] is None else {"cancelled"}
    return any(one["id"] == step and one["state"] in states for one in detail["steps"])


def _count(runs: list[Run]) -> str:
    """Return how many runs of which workflows these are."""
    kinds = Counter(run["workflow"] for run in runs).most_common()
    of = f" ({', '.join(f'{number} of {one_line(name)}' for name, number in kinds)})" if kinds else ""
    return f"{len(runs)} run{'' if len(runs) == 1 else 's'}{of}"


async def _order_all(api: Api, order: Order, runs: list[Run], pause: float) -> int:
    refused = 0
    next_at = clock.monotonic()
    for run in runs:
        await asyncio.sleep(max(0.0, next_at - clock.monotonic()))
        next_at = max(next_at, clock.monotonic() - pause) + pause
        try:
            answer: Run = await api.post(f"/runs/{quoted(run['id'])}/{order}")
        except CliError as error:
            if error.exit_code is ExitCode.NO_SERVER:
                raise
            refused += 1
            screen.say(f"{run['id']}: {error}")
        else:
            screen.put(answer["id"])
    screen.say(f"{_DONE[order]} {len(runs) - refused} of {_count(runs)}")
    return ExitCode.FAILED if refused else ExitCode.OK
