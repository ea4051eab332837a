"""``hopline dev``: engine, API and worker in one, with the files loaded again whenever they change."""

from pathlib import Path
from typing import Annotated

import typer

from hopline_cli import options
from hopline_cli.lazy import verb_app

app = verb_app()


@app.command()
def dev(
    paths: options.Paths,
    port: Annotated[int | None, typer.Option("--port", help="Port of the API [env: HOPLINE_PORT; 8484].")] = None,
    concurrency: options.Concurrency = None,
) -> None:
    """Serve workflow files while you edit them.

    A changed file is loaded by a new worker; the one before it finishes what it is doing. A file that does not load
    is reported and changes nothing. Ctrl-C stops everything in order; open runs go on the next time.
    """
    from hopline_cli.developing import develop
    from hopline_cli.errors import UsageError

    for path in paths:
        if not Path(path).exists():
            raise UsageError(f"there is no file or folder {path}", code="file-not-found")
    from hopline_engine import event_loop

    event_loop.run(develop(paths, port, concurrency))
