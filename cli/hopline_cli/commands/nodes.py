"""``hopline nodes``: the processes that share the work."""

import asyncio

from hopline_cli import options
from hopline_cli.lazy import noun_app

app = noun_app("List nodes.")


@app.command("list")
def list_nodes(
    as_json: options.Json = False,
    json_lines: options.JsonLines = False,
    quiet: options.Quiet = False,
    server: options.Server = None,
) -> None:
    """List the servers that share one store: which part of the runs each works on, and when it was last heard."""
    from hopline_cli.lists import Form
    from hopline_cli.looking import list_of_nodes

    asyncio.run(list_of_nodes(Form(as_json=as_json, json_lines=json_lines, quiet=quiet), server))
