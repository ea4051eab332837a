"""``hopline worker``: serve the steps of workflow files to an engine elsewhere."""

import asyncio
import os
from typing import Annotated

import typer

from hopline_cli import options
from hopline_cli.lazy import verb_app

app = verb_app()


@app.command()
def worker(
    paths: options.Paths,
    server: options.Server = None,
    concurrency: options.Concurrency = None,
    processes: Annotated[int, typer.Option("--processes", min=1, help="Worker processes, for steps that compute.")] = 1,
    host: Annotated[str, typer.Option("--host", help="Address on which the engine reaches the worker.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port to listen on; 0 is any free one.")] = 0,
    pull: Annotated[
        list[str] | None,
        typer.Option(
            "--pull",
            metavar="QUEUE[=STEP]",
            help="Take tasks of a pull queue, for a step or the one each tag names.",
        ),
    ] = None,
    lease: Annotated[
        int, typer.Option("--lease", min=1, help="Seconds after which tasks of a worker that died return.")
    ] = 30,
) -> None:
    """Serve the steps of workflow files to an engine; waits for it when it is not up yet.

    Without --server, the server that runs on this folder's store is used, or else the one on the usual port.
    """
    from hopline_cli.server import load_settings, server_to_join
    from hopline_cli.workers import Job, worker_command, worker_environment

    settings = load_settings(server_url=server)
    url = settings.server_url or asyncio.run(server_to_join(settings))
    flags = ["--host", host, "--port", str(port), "--processes", str(processes), "--lease", str(lease)]
    flags += [f"--pull={queue}" for queue in pull or ()]
    command = worker_command(Job(url=url, paths=paths, concurrency=concurrency), *flags)
    # The worker takes the place of this process, signals included.
    os.execve(command[0], command, worker_environment(settings.api_token))  # noqa: S606
