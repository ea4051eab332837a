"""Approvals: what people are asked, and their decisions."""

import getpass
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from hopline_cli import screen
from hopline_cli.client import Api, quoted
from hopline_cli.errors import CliError, UsageError
from hopline_cli.happening import json_of
from hopline_cli.lists import Form, put_list
from hopline_cli.server import reached
from hopline_cli.table import Column
from hopline_cli.text import one_line, printable
from hopline_cli.when import ago, unix
from hopline_engine import clock


class Approval(TypedDict):
    """A question to a person."""

    run: str
    workflow: str
    step: str
    prompt: str
    to: list[str]
    state: str
    asked_at: str
    expires_at: str | None
    by: str | None
    decided_at: str | None
    form: Any


class ApprovalDetail(Approval):
    """A question to a person, with what is needed to answer it."""

    link: str | None
    form_schema: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was decided."""

    approved: bool
    form: str | None
    """JSON, or ``@`` and a file with it."""
    by: str | None


async def list_of_approvals(state: str, limit: int, form: Form, server: str | None) -> None:
    """Print what people are asked."""
    async with reached(server) as api:
        approvals: list[Approval] = (await api.get("/approvals", state=state, limit=limit))["approvals"]
    columns = [
        Column(title="RUN"),
        Column(title="STEP"),
        Column(title="STATE"),
        Column(title="ASKED", importance=4),
        Column(title="TO", importance=5),
        Column(title="BY", importance=3),
        Column(title="PROMPT", importance=6),
    ]
    put_list(form, approvals, "run", columns, [_row(approval) for approval in approvals], "nobody is asked anything")


async def show_approval(ref: str, step: str | None, *, as_json: bool, server: str | None) -> None:
    """Print what a run asks."""
    async with reached(server) as api:
        detail: ApprovalDetail = await api.get(await _path(api, ref, step))
    if as_json:
        screen.put_json(detail)
        return
    lines = [printable(detail["prompt"]), f"{detail['state']}, step {one_line(detail['step'])} of run {detail['run']}"]
    if detail["to"]:
        lines.append(f"for {one_line(', '.join(detail['to']))}")
    if detail["expires_at"]:
        lines.append(f"until {detail['expires_at']}")
    if detail["by"]:
        lines.append(f"decided by {one_line(detail['by'])} at {detail['decided_at']}")
    if detail["form"] is not None:
        lines.append(f"form {one_line(json.dumps(detail['form']))}")
    elif detail["form_schema"] is not None:
        lines.append(f"form with the fields {one_line(', '.join(_fields(detail['form_schema'])))}")
    if detail["link"]:
        lines.append(detail["link"])
    screen.put(*lines)


def _fields(schema: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields of a model's schema, which may stand among its definitions."""
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    model = schema.get("$defs", {}).get(name, schema)
    return list(model.get("properties", {}))


async def decide(ref: str, step: str | None, answer: Answer, *, as_json: bool, server: str | None) -> None:
    """Approve or reject what a run asks."""
    form = json_of(answer.form) if answer.form is not None else None
    by = answer.by or _user()
    async with reached(server) as api:
        path = await _path(api, ref, step)
        detail: ApprovalDetail = await api.post(path, {"approved": answer.approved, "form": form, "by": by})
    if as_json:
        screen.put_json(detail)
    screen.say(f"{detail['state']} {one_line(detail['step'])} of run {detail['run']}, as {one_line(by)}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # in a container whose user has no name
        raise UsageError("it is not known who decides", hint="say it: --by NAME") from None


async def _path(api: Api, ref: str, step: str | None) -> str:
    """Return where an approval is; without a step, the only one that the run asks for now."""
    run = await api.get(f"/runs/{quoted(ref)}")
    name = step or _only([each["id"] for each in run["steps"] if each["kind"] == "approval"], run)
    return f"/approvals/{run['id']}/{quoted(name)}"


def _only(steps: Sequence[str], run: Any) -> str:
    waiting = [each["id"] for each in run["steps"] if each["id"] in steps and each["state"] == "waiting"]
    found = waiting or steps
    if len(found) == 1:
        return found[0]
    if not found:
        raise CliError("no-approval", f"run {run['id']} asks nobody to decide anything")
    raise UsageError(f"run {run['id']} asks several things", hint=f"name one of them: {', '.join(found)}")


def _row(approval: Approval) -> tuple[str, ...]:
    time = approval["asked_at"]
    asked = ago(clock.now() - unix(time)) if screen.is_terminal() else time
    to, by = one_line(", ".join(approval["to"])) or "-", one_line(approval["by"] or "-")
    return (
        approval["run"],
        one_line(approval["step"]),
        approval["state"],
        asked,
        to,
        by,
        one_line(approval["prompt"]),
    )
