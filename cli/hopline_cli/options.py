"""Options that several commands share."""

from collections.abc import Callable
from typing import Annotated

import typer

from hopline_cli.errors import UsageError


def named(noun: str) -> Callable[[str | None], str | None]:
    """Return what lets a name on the command line through unless it is empty, as an unset variable's is."""

    def check(name: str | None) -> str | None:
        if name is not None and not name.strip():
            raise UsageError(f"the {noun} has no name: it was given as an empty text")
        return name

    return check


Server = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", help="Server to talk to [env: HOPLINE_SERVER_URL].", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print the API's JSON.")]
JsonLines = Annotated[bool, typer.Option("--jsonl", help="Print one JSON object per line.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print ids or names only.")]
RunRef = Annotated[
    str, typer.Argument(metavar="RUN", help="Id of a run or its beginning, @last or @failed.", callback=named("run"))
]
NoLive = Annotated[bool, typer.Option("--no-live", help="Print lines instead of the live picture.")]
Paths = Annotated[list[str], typer.Argument(metavar="PATH...", help="Workflow files, or folders of them.")]
Concurrency = Annotated[
    int | None, typer.Option("--concurrency", min=1, help="Steps a worker runs at the same time.", show_default=False)
]
By = Annotated[str | None, typer.Option("--by", help="Who decides; without it, your user name.", show_default=False)]
Filled = Annotated[
    str | None, typer.Option("--form", metavar="JSON", help="The form, filled in; @FILE reads it.", show_default=False)
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
