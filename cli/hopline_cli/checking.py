"""Files looked at without serving them: a process of its own imports and compiles them, this one reads its report."""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import TypedDict

from rich.text import Text

from hopline_cli.answers import LoadError
from hopline_cli.client import quoted
from hopline_cli.errors import CliError
from hopline_cli.server import reached
from hopline_cli.shape import Definition, callees, nodes
from hopline_cli.starting import meant, split_target
from hopline_cli.text import count, one_line, printable
from hopline_cli.workers import LoadFailed, exit_told, where


class Found(TypedDict):
    """Where a workflow stands."""

    name: str
    digest: str
    file: str
    line: int


class Served(TypedDict):
    """A Python step that a worker of the files serves."""

    name: str
    signature: str


class Warned(TypedDict):
    """Something about a workflow that may not be meant."""

    workflow: str
    message: str
    file: str
    line: int


class Checked(TypedDict):
    """What is in files: compiled definitions, and what is wrong."""

    definitions: list[Definition]
    workflows: list[Found]
    steps: list[Served]
    warnings: list[Warned]
    errors: list[LoadError]


def checked(paths: Sequence[str]) -> Checked:
    """Return what is in *paths*; what the files print while they are imported goes to stderr."""
    command = [sys.executable, "-P", "-m", "hopline_engine.worker.check", *paths]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)  # noqa: S603 - our own interpreter
    try:
        found: Checked = json.loads(done.stdout)
    except ValueError:
        raise CliError("check-died", f"checking ended with {exit_told(done.returncode)}") from None
    return found


def told(found: Checked) -> list[Text]:
    """Return one line per workflow, then the errors with their hints."""
    listed = {workflow["name"] for workflow in found["workflows"]}
    definitions = [one for one in found["definitions"] if one["name"] in listed]
    widest = max((len(one["name"]) for one in definitions), default=0)
    lines = []
    for one in sorted(definitions, key=lambda one: str(one["name"])):
        lines.append(_sound(one, widest))
        warned = [warning for warning in found["warnings"] if warning["workflow"] == one["name"]]
        lines += [Text.assemble(" ", ("!", "yellow"), f" {one_line(each['message'])}") for each in warned]
    for error in found["errors"]:
        lines += _unsound(error)
    return lines


def _sound(definition: Definition, width: int) -> Text:
    every = nodes(definition)
    levels = 1 + max((node.level for node in every), default=-1)
    name = one_line(definition["name"]).ljust(width)
    return Text.assemble(" ", ("✔", "green"), f" {name}  {count(len(every), 'step')}  {count(levels, 'level')}")


def _unsound(error: LoadError) -> list[Text]:
    place = where(error)
    head = Text.assemble(" ", ("✖", "red"), f" {printable(place)}  " if place else " ", (error["code"], "bold"))
    message = [Text(f"   {line}") for line in printable(error["message"]).splitlines()]
    hint = error.get("hint")
    return [head, *message, *([Text.assemble("   ", ("hint: ", "cyan"), printable(hint))] if hint else [])]


async def definition_of(target: str, server: str | None) -> Definition:
    """Return the definition of a workflow in a file, or of a registered one; ``NAME@DIGEST`` is an older version.

    Raises:
        LoadFailed: the file does not load.
        CliError: there is no such workflow.
    """
    file, workflow = split_target(target)
    if file is None:
        name, _, digest = target.partition("@")
        version = f"/versions/{quoted(digest)}" if digest else ""
        async with reached(server) as api:
            registered: Definition = (await api.get(f"/workflows/{quoted(name)}{version}"))["definition"]
            return registered
    found = checked([file])
    if found["errors"]:
        raise LoadFailed(found["errors"])
    listed = sorted(one["name"] for one in found["workflows"])
    by_name = {str(one["name"]): one for one in found["definitions"]}
    called = {name for definition in by_name.values() for name in callees(definition)}
    return by_name[meant(listed, called, workflow)]
