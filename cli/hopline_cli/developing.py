"""The loop behind ``hopline dev``: one engine, one supervised worker, and a watch over its files."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text
from watchfiles import PythonFilter, awatch

from hopline_cli import screen
from hopline_cli.client import Api, api_inside
from hopline_cli.confiding import say_missing
from hopline_cli.errors import CliError
from hopline_cli.interrupts import Interrupted, Interrupts
from hopline_cli.server import listening, load_settings, opened_to_serve, running_server
from hopline_cli.text import count, listing, printable
from hopline_cli.workers import Job, LoadedWorkflow, LoadFailed, Supervisor, supervised

if TYPE_CHECKING:
    from hopline_engine.bootstrap import Installation
    from hopline_engine.settings import Settings


async def develop(paths: Sequence[str], port: int | None, concurrency: int | None) -> None:
    """Serve *paths* until the user asks to stop."""
    settings = load_settings(port=port)
    other = await running_server(settings)
    if other is not None:
        raise CliError(
            "already-running",
            f"a server is running on this store already, at {other}",
            hint="stop it first, or use another folder with HOPLINE_STATE_DIR",
        )
    interrupts = Interrupts()
    with interrupts.caught(), suppress(Interrupted):
        async with opened_to_serve(settings, interrupts) as engine:
            engine.note_loading(is_loading=True)  # before anybody can ask
            url = await listening(engine, settings.port, schedules=True)
            _banner(url, settings)
            job = Job(url=url, paths=paths, token=settings.api_token, concurrency=concurrency, reloads=True)
            async with (
                supervised(job, screen.say_of_worker) as supervisor,
                api_inside(engine.app, settings.api_token) as api,
            ):
                interrupts.at_once = [supervisor.kill]
                try:
                    await interrupts.unless_asked(_load_whenever_changed(paths, supervisor, engine, api))
                except Interrupted:
                    screen.say("stopping: steps that run are finished first; Ctrl-C again quits at once")


async def _load_whenever_changed(
    paths: Sequence[str], supervisor: Supervisor, engine: "Installation", api: Api
) -> None:
    changed = asyncio.Event()
    how = "loaded"
    async with asyncio.TaskGroup() as tasks:
        for places, recursive in _places(paths):
            tasks.create_task(_watch(places, changed, recursive=recursive))
        while True:
            changed.clear()  # before loading, so that a change in the middle of it is not missed
            engine.note_loading(is_loading=True)
            await _load(supervisor, api, how)
            engine.note_loading(is_loading=False)
            how = "loaded again"
            await changed.wait()


async def _load(supervisor: Supervisor, api: Api, how: str) -> None:
    try:
        workflows = await supervisor.load()
    except LoadFailed as failed:
        screen.complain(failed)
        screen.say("waiting for a change; what was loaded before stays")
    except CliError as error:
        screen.complain(error)
    else:
        screen.say(_told(workflows, how))
        say_missing((await api.get("/secrets"))["missing"])


async def _watch(places: Sequence[str], changed: asyncio.Event, *, recursive: bool) -> None:
    async for _ in awatch(*places, watch_filter=PythonFilter(), recursive=recursive):
        changed.set()


def _places(paths: Sequence[str]) -> list[tuple[list[str], bool]]:
    """Return the folders to watch, and whether those below them are watched as well.

    The folder of a file is watched and not the file itself: editors replace files, and workflows import neighbours.
    """
    folders = [path for path in paths if Path(path).is_dir()]
    neighbours = sorted({str(Path(path).parent) for path in paths if path not in folders})
    return [(places, recursive) for places, recursive in ((folders, True), (neighbours, False)) if places]


def _banner(url: str, settings: "Settings") -> None:
    for name, value in (("api", f"{url}/api/v1"), ("store", settings.store_shown)):
        screen.say(Text.assemble(("  " + name.ljust(7), "bold"), printable(value)))


def _told(workflows: Sequence[LoadedWorkflow], how: str) -> Text:
    names = listing(sorted(workflow["name"] for workflow in workflows), 8)
    return Text.assemble("  ", ("✔", "green"), f" {count(len(workflows), 'workflow')} {how} ({names})")
