"""``hopline serve``: the engine and its API, without workers of its own."""

from typing import Annotated

import typer

from hopline_cli.lazy import verb_app

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
    from hopline_cli import screen
    from hopline_cli.client import is_loopback_host
    from hopline_cli.errors import UsageError
    from hopline_cli.interrupts import Interrupts
    from hopline_cli.server import listening, load_settings, opened
    from hopline_cli.text import printable

    settings = load_settings(host=host, port=port)
    if not is_loopback_host(settings.host) and not settings.api_token:
        raise UsageError(
            f"listening on {settings.host} would open the API to everyone who reaches this machine",
            code="token-needed",
            hint="set HOPLINE_API_TOKEN to a secret of your own, or keep to --host 127.0.0.1",
        )
    interrupts = Interrupts()
    with interrupts.caught():
        async with opened(settings, dispatch=True) as engine:
            url = await listening(engine, settings.port)
            screen.say(f"serving {printable(str(settings.store_path))} at {url}/api/v1")
            await interrupts.asked.wait()
            screen.say("stopping")
