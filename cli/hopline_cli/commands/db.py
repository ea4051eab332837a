"""``hopline db``: the database under the store: what it is, bringing it up to date, copying it, pruning it."""

import asyncio
from typing import Annotated

import typer

from hopline_cli import options
from hopline_cli.lazy import noun_app

app = noun_app("Look at the store's database, upgrade it, copy it, prune it.")


@app.command("status")
def status(as_json: options.Json = False) -> None:
    """Show the store, its database and whether its schema is the newest; nothing is changed."""
    from hopline_cli.database import show_status

    asyncio.run(show_status(as_json=as_json))


@app.command("upgrade")
def upgrade(as_json: options.Json = False) -> None:
    """Bring the schema up to date, as servers do when they start; makes the store if there is none."""
    from hopline_cli.database import upgrade_schema

    asyncio.run(upgrade_schema(as_json=as_json))


@app.command("backup")
def backup(
    target: Annotated[str, typer.Argument(metavar="FILE", help="New file to write.", callback=options.named("file"))],
    as_json: options.Json = False,
) -> None:
    """Copy the store into a file while servers go on: SQLite by itself, Postgres by pg_dump."""
    from hopline_cli.database import backup_to

    asyncio.run(backup_to(target, as_json=as_json))


@app.command("prune")
def prune(
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="How long ago runs have ended, such as 30d.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be deleted.")] = False,
    as_json: options.Json = False,
) -> None:
    """Delete runs that ended long ago, with their steps, logs and ticks, while servers go on; see docs/retention.md."""
    from hopline_cli.database import prune_store

    asyncio.run(prune_store(older_than, is_rehearsed=dry_run, as_json=as_json))
