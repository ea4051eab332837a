"""Versions of workflows: those that are kept, how two of them differ, and which runs a change would leave behind."""

from collections.abc import Collection, Mapping
from typing import Any

from rich.text import Text

from hopline_cli import screen
from hopline_cli.checking import Checked, definition_of
from hopline_cli.client import quoted
from hopline_cli.differences import as_text, differences
from hopline_cli.lists import Form, put_list
from hopline_cli.server import reached
from hopline_cli.table import Column
from hopline_cli.text import count, listing, one_line

DIGITS = 12
"""Of a digest, that are shown."""


async def list_versions(name: str, form: Form, server: str | None) -> None:
    """Print the versions of a workflow that are kept."""
    async with reached(server) as api:
        versions: list[dict[str, Any]] = (await api.get(f"/workflows/{quoted(name)}/versions"))["versions"]
    columns = [
        Column(title="VERSION"),
        Column(title="SINCE"),
        Column(title="LIVE RUNS", right=True),
        Column(title="NEW RUNS"),
    ]
    rows = [
        (
            one_line(version["digest"][:DIGITS]),
            one_line(version["created_at"]),
            str(version["live_runs"]),
            Text("use it", "green") if version["current"] else Text("-"),
        )
        for version in versions
    ]
    put_list(form, versions, "digest", columns, rows, "no version is kept")


async def show_differences(before: str, after: str, *, as_json: bool, server: str | None) -> bool:
    """Print what differs between two versions; return whether anything does."""
    found = differences(await definition_of(before, server), await definition_of(after, server))
    if as_json:
        screen.put_json(found.as_json())
    elif found:
        screen.put(*as_text(found))
    else:
        screen.say("no difference: both are the same version")
    return bool(found)


async def stranded(checked: Checked, server: str | None) -> list[dict[str, Any]]:
    """Return what live runs need and these files do not serve, though they have a step of that name or its workflow."""
    async with reached(server) as api:
        needs: list[dict[str, Any]] = (await api.get("/needs"))["needs"]
    served = {(step["name"], step["signature"]) for step in checked["steps"]}
    names = {name for name, _ in served}
    workflows = {found["name"] for found in checked["workflows"]}
    return [need for need in needs if _is_lost(need, served, names, workflows)]


def _is_lost(
    need: Mapping[str, Any], served: Collection[tuple[str, str]], names: Collection[str], workflows: Collection[str]
) -> bool:
    is_of_these_files = need["step"] in names or need["workflow"] in workflows
    return is_of_these_files and (need["step"], need["signature"]) not in served


def told(lost: list[dict[str, Any]], served: Collection[str]) -> list[Text]:
    """Return lines about runs that would be left behind; *served* are the names of the steps that files have."""
    lines = []
    for need in lost:
        why = "has another signature now" if need["step"] in served else "is gone"
        runs = listing(need["examples"]) + (f" and {need['runs'] - len(need['examples'])} more" * _is_more(need))
        lines += [
            Text.assemble(" ", ("✖", "red"), f" {one_line(need['workflow'])}  ", ("stranded-runs", "bold")),
            Text(f"   step {one_line(need['step'])} {why}; {count(need['runs'], 'live run')} {_verb(need)} it: {runs}"),
            Text.assemble(
                "   ",
                ("hint: ", "cyan"),
                "keep a worker of the old file until they have ended, or cancel them; or give the step a new name",
            ),
        ]
    return lines


def _is_more(need: Mapping[str, Any]) -> bool:
    return int(need["runs"]) > len(need["examples"])


def _verb(need: Mapping[str, Any]) -> str:
    return "needs" if need["runs"] == 1 else "need"
