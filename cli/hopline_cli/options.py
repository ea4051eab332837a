"""Options that several commands share."""

from typing import Annotated

import typer

Server = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", help="Server to talk to [env: HOPLINE_SERVER_URL].", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print the API's JSON.")]
JsonLines = Annotated[bool, typer.Option("--jsonl", help="Print one JSON object per line.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print ids or names only.")]
RunRef = Annotated[str, typer.Argument(metavar="RUN", help="Id of a run or its beginning, @last or @failed.")]
NoLive = Annotated[bool, typer.Option("--no-live", help="Print lines instead of the live picture.")]
Paths = Annotated[list[str], typer.Argument(metavar="PATH...", help="Workflow files, or folders of them.")]
Concurrency = Annotated[
    int | None, typer.Option("--concurrency", min=1, help="Steps a worker runs at the same time.", show_default=False)
]
