"""``hopline serve``: the engine and its API, without workers of its own."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from hopline_cli.lazy import verb_app

if TYPE_CHECKING:
    from hopline_cli.interrupts import Interrupts
    from hopline_engine.settings import Settings

JOIN_AGAIN_SECONDS = 1.0
"""How long to wait before the next try, when the database takes nobody in."""

app = verb_app()


@app.command()
def serve(
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on [env: HOPLINE_HOST].")] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port to listen on [env: HOPLINE_PORT; 8484].")] = None,
) -> None:
    """Run the engine and its API until Ctrl-C or SIGTERM.

    Workers come by themselves: hopline worker PATH --server URL. Listening on more than this machine needs
    HOPLINE_API_TOKEN.
    """
    from hopline_engine import event_loop

    event_loop.run(_serve(host, port))


async def _serve(host: str | None, port: int | None) -> None:
    from hopline_cli.errors import UsageError
    from hopline_cli.interrupts import Interrupted, Interrupts
    from hopline_cli.server import load_settings
    from hopline_engine.listening import is_loopback

    settings = load_settings(host=host, port=port)
    if not is_loopback(settings.host) and not settings.api_token:
        raise UsageError(
            f"listening on {settings.host} would open the API to everyone who reaches this machine",
            code="token-needed",
            hint="set HOPLINE_API_TOKEN to a secret of your own, or keep to --host 127.0.0.1",
        )
    interrupts = Interrupts()
    with interrupts.caught(), suppress(Interrupted):
        await _serve_until_asked(settings, interrupts)


async def _serve_until_asked(settings: "Settings", interrupts: "Interrupts") -> None:
    """Serve, as another node each time that the others took this one for dead; ends by ``Interrupted`` only."""
    from hopline_cli import screen
    from hopline_cli.errors import CliError
    from hopline_cli.interrupts import Interrupted
    from hopline_cli.server import listening, opened_to_serve
    from hopline_cli.text import printable

    was_lost = False
    while True:
        try:
            async with opened_to_serve(settings, interrupts) as engine:
                url = await listening(engine, settings.port, schedules=True)
                screen.say(f"serving {printable(settings.store_shown)} at {url}/api/v1")
                try:
                    lost = await interrupts.unless_asked(engine.lost())
                except Interrupted:
                    screen.say("stopping")
                    raise
                raise lost
        except CliError as error:
            is_lost = settings.is_on_postgres and error.code == "ownership-lost"
            if not is_lost and not (was_lost and error.code == "store-cannot-connect"):
                raise
            was_lost = True
            if is_lost:
                screen.say("other nodes took this one for dead; it joins them again")
            else:
                screen.say(f"cannot join them yet: {error.message}")
                await interrupts.unless_asked(asyncio.sleep(JOIN_AGAIN_SECONDS))
