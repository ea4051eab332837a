"""``hopline emulator``: the queue service alone, for programs that use Google Cloud Tasks."""

from typing import Annotated

import typer

from hopline_cli.lazy import noun_app

app = noun_app("Be Cloud Tasks for programs that use it.")


@app.command("start")
def start(
    grpc: Annotated[int, typer.Option("--grpc", help="Port of the gRPC API; 0 for any.")] = 8123,
    rest: Annotated[int, typer.Option("--rest", help="Port of the REST API; 0 for any.")] = 8124,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on [127.0.0.1].")] = None,
    create_queues: Annotated[
        bool, typer.Option("--create-queues", help="Make a queue when its first task is created.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the addresses as JSON.")] = False,
) -> None:
    """Serve the Cloud Tasks API until Ctrl-C or SIGTERM; what is in the queues is kept in the store."""
    from hopline_cli.emulating import serve_emulator
    from hopline_engine import event_loop

    event_loop.run(serve_emulator(grpc, rest, host, create_queues=create_queues or None, as_json=as_json))
