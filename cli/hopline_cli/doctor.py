"""Looking for what is wrong: at the server if one is up, else into the store; and telling it."""

import json
import platform
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.text import Text

from hopline_cli import screen
from hopline_cli.answers import Check, Diagnosis
from hopline_cli.client import api_over
from hopline_cli.errors import CliError, ExitCode, ServerGone
from hopline_cli.server import examined, load_settings, server_found
from hopline_cli.text import one_line, printable
from hopline_cli.when import unix
from hopline_engine import clock

if TYPE_CHECKING:
    from hopline_engine.settings import Settings

SIGNS = {"ok": ("✔", "green"), "note": ("!", "yellow"), "wrong": ("✖", "red")}
MOST_SHOWN = 5
"""Pieces of evidence that are shown of a check; --json has more."""

SKEW_SECONDS = 5.0
"""How far the clock of a server may be from ours: an answer takes its time too."""


async def examine(*, as_json: bool, server: str | None) -> int:
    """Print what was found, and return the exit code."""
    settings = load_settings(server_url=server)
    found = await _diagnosis(settings)
    found["ok"] = all(check["state"] != "wrong" for check in found["checks"])
    if as_json:
        screen.put_json(found)
    else:
        screen.put(*_lines(found))
    return ExitCode.OK if found["ok"] else ExitCode.FAILED


async def _diagnosis(settings: "Settings") -> Diagnosis:
    checks = [_check("hopline", f"{_version()}, python {platform.python_version()} on {platform.system()}")]
    found: Diagnosis | None = None
    try:
        url = await server_found(settings)
        if url is not None:
            found = await _asked(url, settings)
            checks += _of_server(url, found)
    except (ServerGone, CliError) as error:
        checks.append(_wrong("server", error))
    if found is None:
        is_named = any(check["name"] == "server" for check in checks)
        if not is_named:
            checks.append(_check("server", "none is up on this store", "note", hint="hopline serve"))
        found = await _looked_at(settings, checks)
    found["checks"] = [*checks, *found["checks"]]
    return found


async def _asked(url: str, settings: "Settings") -> Diagnosis:
    async with api_over(url, settings.api_token) as api:
        found: Diagnosis = await api.get("/doctor")
    return found


async def _looked_at(settings: "Settings", checks: list[Check]) -> Diagnosis:
    """Look into the store, if there is one; what cannot be looked at is added to *checks*."""
    nothing: Diagnosis = {"version": _version(), "at": "", "ok": True, "checks": [], "healed": {}}
    if not settings.is_on_postgres and not settings.store_path.exists():
        text = f"there is none at {settings.store_path} yet"
        checks.append(_check("store", text, "note", hint="begin with: hopline run FILE"))
        return nothing
    try:
        return await examined(settings)
    except CliError as error:
        checks.append(_wrong("store", error))
        return nothing


def _of_server(url: str, found: Diagnosis) -> Iterator[Check]:
    yield _check("server", f"answers at {url}, version {found['version']}")
    if found["version"] != _version():
        text = f"the server is version {found['version']}, and this is {_version()}"
        yield _check("version", text, "note", hint="use the same version on both sides")
    skew = unix(found["at"]) - clock.now()
    if abs(skew) > SKEW_SECONDS:
        text = f"the server's differs from this machine's by {skew:.0f} s"
        yield _check("server-clock", text, "wrong", hint="keep the clocks of all machines in step, as with NTP")


def _check(name: str, text: str, state: str = "ok", hint: str | None = None) -> Check:
    return {"name": name, "state": state, "text": text, "hint": hint, "evidence": [], "is_audit": False}


def _wrong(name: str, error: CliError) -> Check:
    return _check(name, error.message, "wrong", hint="; ".join(error.hints) or None)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("hopline")
    except PackageNotFoundError:  # run from its sources
        return "0"


def _lines(found: Diagnosis) -> Iterator[Text]:
    quiet = [check for check in found["checks"] if check["is_audit"] and check["state"] == "ok"]
    shown = [check for check in found["checks"] if check not in quiet]
    width = max(len(check["name"]) for check in shown)
    if quiet:
        shown.append(_check("rules", f"{len(quiet)} that must always hold, none of them broken"))
    for check in sorted(shown, key=lambda check: list(SIGNS).index(check["state"])):  # what is wrong comes last
        yield from _of_check(check, width)


def _of_check(check: Check, width: int) -> Iterator[Text]:
    yield _line(check["state"], check["name"], check["text"], width)
    indent = " " * (width + (4 if screen.is_terminal() else 9))
    if check["hint"] and check["state"] != "ok":
        yield Text.assemble(indent, ("hint: ", "cyan"), printable(check["hint"]))
    for piece in check["evidence"][:MOST_SHOWN]:
        yield Text(indent + one_line(json.dumps(piece, ensure_ascii=False)))
    if len(check["evidence"]) > MOST_SHOWN:
        yield Text(f"{indent}and {len(check['evidence']) - MOST_SHOWN} more: hopline doctor --json")


def _line(state: str, name: str, text: str, width: int) -> Text:
    sign, colour = SIGNS[state]
    begin = (f"{sign} ", colour) if screen.is_terminal() else (f"{state:<7}", "")
    return Text.assemble(begin, (f"{name:<{width}}  ", "bold"), one_line(text))
