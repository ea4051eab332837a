"""Looking at runs: lists, one run, its logs, its output, and why it is not further."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich.text import Text

from hopline_cli import screen
from hopline_cli.answers import Attempt, Node, Reason, Run, RunDetail, Step, SubRun
from hopline_cli.client import Api, quoted
from hopline_cli.lists import Form, put_list
from hopline_cli.live import lines, note, seconds_worked, state_sign
from hopline_cli.server import reached
from hopline_cli.table import Column, table
from hopline_cli.text import json_text, one_line, printable
from hopline_cli.when import ago, duration, since, unix
from hopline_engine import clock

MOST_A_PAGE = 500
MOST_SUB_RUNS = 5
"""Of one step; the others are listed by a command of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which runs to list."""

    state: str | None = None
    workflow: str | None = None
    since: str | None = None
    parent: str | None = None
    """Only the runs that steps of this run started."""
    retried: bool | None = None
    """Only runs that were, or were not, retried."""
    limit: int


async def list_of_runs(wanted: Filter, form: Form, server: str | None) -> None:
    """Print a list of runs."""
    async with reached(server) as api:
        runs = await pages(api, wanted)
    put_runs(form, runs, wanted)


def put_runs(form: Form, runs: list[Run], wanted: Filter) -> None:
    """Print runs as a list."""
    now = clock.now()
    columns = [
        Column(title="RUN"),
        *([Column(title="STEP", importance=7)] if wanted.parent is not None else []),
        Column(title="WORKFLOW", importance=5),
        Column(title="STATE", importance=8),
        Column(title="STEPS", importance=4, right=True),
        Column(title="STARTED", importance=6),
        Column(title="TOOK", importance=3, right=True),
        Column(title="FAILURE", importance=2, flowing=True),
    ]
    put_list(form, runs, "id", columns, [_row(run, now) for run in runs], "no runs")


async def pages(api: Api, wanted: Filter) -> list[Run]:
    """Return the runs that are wanted, newest first."""
    begin = since(wanted.since, clock.now()) if wanted.since else None
    runs: list[Run] = []
    after: str | None = None
    while len(runs) < wanted.limit:
        page = await api.get(
            "/runs",
            state=wanted.state,
            workflow=wanted.workflow,
            since=begin,
            parent=wanted.parent,
            retried=None if wanted.retried is None else str(wanted.retried).lower(),
            limit=min(wanted.limit - len(runs), MOST_A_PAGE),
            after=after,
        )
        runs += page["runs"]
        after = page["next"]
        if after is None:
            break
    return runs


def _row(run: Run, now: float) -> tuple[str | Text, ...]:
    created = unix(run["created_at"])
    ended = unix(run["ended_at"]) if run["ended_at"] else now
    above = run["parent"]
    return (
        Text(printable(run["id"]), "cyan"),
        *([one_line(_element(above["step"], above["item"]))] if above is not None else []),
        one_line(run["workflow"]),
        state_sign(run["state"]) if screen.is_terminal() else run["state"],
        f"{run['steps_done']}/{run['steps_total']}",
        ago(now - created) if screen.is_terminal() else run["created_at"],
        duration(ended - created),
        _failure(run),
    )


def _element(step: str, item: int | None) -> str:
    return step if item is None else f"{step}[{item}]"


def _failure(run: Run) -> str:
    error = run["error"] or {}
    return one_line("  ".join(str(part) for part in (error.get("step"), error.get("message")) if part))


async def list_of_nodes(form: Form, server: str | None) -> None:
    """Print the servers that share the work."""
    async with reached(server) as api:
        nodes: list[Node] = (await api.get("/nodes"))["nodes"]
    columns = [
        Column(title="NODE"),
        Column(title="URL", importance=8),
        Column(title="EPOCH", importance=2, right=True),
        Column(title="SHARDS", importance=6, right=True),
        Column(title="STARTED", importance=3),
        Column(title="HEARD", importance=5),
    ]
    put_list(form, nodes, "id", columns, [_node_row(node, clock.now()) for node in nodes], "no node")


def _node_row(node: Node, now: float) -> tuple[str, ...]:
    times = [node["started_at"], node["heartbeat_at"]]
    shown = [ago(now - unix(time)) for time in times] if screen.is_terminal() else times
    url = one_line(node["url"]) if node["url"] else "-"
    return one_line(node["id"]), url, str(node["epoch"]), str(node["shards"]), *shown


async def show_run(ref: str, *, as_json: bool, server: str | None) -> None:
    """Print a run and its steps: the picture on a terminal, a table in a pipe."""
    async with reached(server) as api:
        run: RunDetail = await api.get(f"/runs/{quoted(ref)}")
    now = clock.now()
    if as_json:
        screen.put_json(run)
    elif screen.is_terminal():
        screen.put(*lines(run, now, screen.data().width), *_particulars(run, now))
    else:
        screen.put(*_head(run), *_particulars(run, now), "", *_step_table(run, now))


def _head(run: RunDetail) -> Iterator[str]:
    yield f"run       {run['id']}"
    yield f"workflow  {one_line(run['workflow'])}"
    yield f"state     {run['state']}"
    yield f"steps     {run['steps_done']} of {run['steps_total']}"
    yield f"created   {run['created_at']}"
    if run["ended_at"]:
        yield f"ended     {run['ended_at']}"


def _terms(run: RunDetail, now: float) -> Iterator[str]:
    """Yield a line for its priority, and for its deadline: how far that is, while it still counts."""
    if priority := run.get("priority"):
        yield f"priority  {priority}"
    if deadline := run.get("deadline_at"):
        left = unix(deadline) - now
        yield f"deadline  {deadline}" + ("" if run["ended_at"] or left < 0 else f" (in {duration(left)})")


def _particulars(run: RunDetail, now: float) -> Iterator[str]:
    yield f"input     {json_text(run['input'], indent=None)}"
    if tick := run.get("scheduled"):
        yield f"tick      {one_line(tick['local'])} of schedule {one_line(tick['schedule'])}"
        why = f": {one_line(tick['reason'])}" if tick["reason"] else ""
        yield f"late      {duration(tick['late_seconds'])}{why}"
    elif run["idempotency_key"]:
        yield f"key       {one_line(run['idempotency_key'])}"
    yield from _terms(run, now)
    if run["retry_of"]:
        yield f"retry of  {run['retry_of']}"
    if run["fork_of"]:
        yield f"fork of   {run['fork_of']}"
    if kept := [one_line(step["id"]) for step in run["steps"] if step["reused"]]:
        yield f"reused    {', '.join(kept)}"
    if run["error"]:
        yield f"error     {_failure(run)}"
    if run["note"]:
        yield f"note      {one_line(run['note'])}"
    if above := run["parent"]:
        yield f"part of   {above['run']}, step {one_line(_element(above['step'], above['item']))}"
    yield from _sub_runs(run)


def _sub_runs(run: RunDetail) -> Iterator[str]:
    """Yield a line for each step that started runs: those that failed first, then in the order of their items."""
    for step in run["steps"]:
        known = sorted(step["runs"], key=lambda one: one["state"] != "failed")
        shown = [f"{_item(one)}{one['run']} {one['state']}" for one in known[:MOST_SUB_RUNS]]
        if len(known) > MOST_SUB_RUNS:
            shown.append(f"more: hopline runs list --children-of {run['id']}")
        if shown:
            yield f"runs of {one_line(step['id'])}  {', '.join(shown)}"


def _item(sub_run: SubRun) -> str:
    return "" if sub_run["item"] is None else f"[{sub_run['item']}] "


def _step_table(run: RunDetail, now: float) -> list[Text]:
    columns = [Column(title=title) for title in ("STEP", "STATE", "ATTEMPTS", "STARTED", "TOOK", "NOTE")]
    states = {step["id"]: step["state"] for step in run["steps"]}
    return table(columns, [_step_row(step, states, now) for step in run["steps"]], None)


def _step_row(step: Step, states: dict[str, str], now: float) -> tuple[str, ...]:
    worked = seconds_worked(step, now)
    return (
        one_line(step["id"]),
        step["state"],
        str(step["attempts"]) if step["items"] is None else "-",  # those of a map are counted for each item
        step["started_at"] or "-",
        "-" if worked is None else duration(worked),
        one_line(note(step, states, now)),
    )


async def show_logs(ref: str, step: str | None, attempt: int | None, *, as_json: bool, server: str | None) -> None:
    """Print what attempts printed, each under a line that says which it is and how it ended."""
    async with reached(server) as api:
        attempts: list[Attempt] = (await api.get(f"/runs/{quoted(ref)}/logs", step=step, attempt=attempt))["attempts"]
        nothing = None if attempts else await _why_no_logs(api, ref, step, attempt)
    if as_json:
        screen.put_json(attempts)
        return
    for one in attempts:
        screen.put(_title(one))
        for text in (one["logs"], (one["error"] or {}).get("traceback"), _said(one)):
            if text:
                screen.put_plain(printable(text.rstrip()))
    if nothing:
        screen.say(nothing)


async def _why_no_logs(api: Api, ref: str, step: str | None, attempt: int | None) -> str:
    if attempt is not None:
        return f"no attempt {attempt} has ended"
    if step is not None:
        run: RunDetail = await api.get(f"/runs/{quoted(ref)}")
        if any(one["id"] == step and one["kind"] == "workflow" for one in run["steps"]):
            return f"{one_line(step)} starts runs of their own, which have the attempts"
    return "no attempt has ended yet"


def _title(attempt: Attempt) -> Text:
    name = _element(attempt["step"], attempt["item"])
    took = duration(unix(attempt["ended_at"]) - unix(attempt["started_at"])) if attempt["ended_at"] else "so far"
    status = f"  HTTP {attempt['status']}" if attempt["status"] is not None else ""
    colour = "green" if attempt["state"] == "succeeded" else "red"
    return Text.assemble(
        (f"── {one_line(name)} ", "bold"),
        f"attempt {attempt['attempt']}  ",
        (attempt["state"], colour),
        f"  {took}{status}",
    )


def _said(attempt: Attempt) -> str | None:
    """Return the error of an attempt, unless its traceback ends with it anyway."""
    error = attempt["error"]
    if not error or error.get("traceback"):
        return None
    return ": ".join(str(part) for part in (error.get("type"), error.get("message")) if part)


async def show_output(ref: str, server: str | None) -> None:
    """Print the result of a run."""
    async with reached(server) as api:
        screen.put_json((await api.get(f"/runs/{quoted(ref)}/output"))["result"])


async def explain(ref: str, step: str | None, *, as_json: bool, server: str | None) -> None:
    """Print why steps are not done, a sentence each."""
    async with reached(server) as api:
        answer = await api.get(f"/runs/{quoted(ref)}/why", step=step)
    if as_json:
        screen.put_json(answer)
        return
    reasons: list[Reason] = answer["reasons"]
    for reason in reasons:
        screen.put(one_line(reason["text"]))
    if not reasons:
        screen.put(f"{answer['run']} {answer['state']}: no step is waiting")
