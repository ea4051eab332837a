"""``hopline help TOPIC``: what belongs to no single command."""

import typer

from hopline_cli.errors import ExitCode
from hopline_cli.lazy import noun_app

app = noun_app("Pages of help.")


@app.command("exit-codes")
def exit_codes() -> None:
    """List the exit codes of every command."""
    for code in ExitCode:
        typer.echo(f"{code.value:>4}  {code.meaning}")
