"""Looking after the database of the store that the settings name, without a server."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from hopline_cli import screen
from hopline_cli.errors import CliError, UsageError
from hopline_cli.server import load_settings
from hopline_cli.text import one_line, printable

if TYPE_CHECKING:
    from hopline_engine.store.upkeep import StoreStatus

_COLOURS = {"current": "green", "outdated": "yellow", "new": "yellow"}


async def show_status(*, as_json: bool) -> None:
    """Print what the store is."""
    from hopline_engine.store import upkeep

    with _told():
        status = await upkeep.status(load_settings())
    _put(status, as_json=as_json)


async def upgrade_schema(*, as_json: bool) -> None:
    """Upgrade the store, and print what it is then."""
    from hopline_engine.store import upkeep

    settings = load_settings()
    with _told():
        before = await upkeep.status(settings)
        await upkeep.upgrade(settings)
        status = await upkeep.status(settings)
    if before.revision != status.revision:
        screen.say(f"upgraded from {before.revision or 'nothing'} to {status.revision}")
    _put(status, as_json=as_json)


async def backup_to(target: str, *, as_json: bool) -> None:
    """Copy the store, and print where and how much."""
    from hopline_engine.store import upkeep

    settings = load_settings()
    with _told():
        size = await upkeep.backup(settings, Path(target))
    if as_json:
        screen.put_json({"store": settings.store_shown, "file": target, "size_bytes": size})
    else:
        screen.put(f"{printable(target)}  {_bytes(size)}")


async def prune_store(older_than: str, *, is_rehearsed: bool, as_json: bool) -> None:
    """Delete what is old, and print how much that was."""
    from hopline.durations import parse
    from hopline_engine.store import upkeep

    try:
        seconds = parse(older_than)
    except ValueError as error:
        raise UsageError(f"--older-than: {error}") from None
    settings = load_settings()
    with _told():
        pruned = await upkeep.prune(settings, older_than=seconds, is_rehearsed=is_rehearsed)
    numbers = {"runs": pruned.runs, "steps": pruned.steps, "attempts": pruned.attempts, "ticks": pruned.ticks}
    if as_json:
        screen.put_json({"store": settings.store_shown, "deleted": not is_rehearsed, **numbers})
        return
    listed = ", ".join(f"{number:,} {name}" for name, number in numbers.items())
    screen.put(f"{'would delete' if is_rehearsed else 'deleted'} {listed}")


@contextmanager
def _told() -> Iterator[None]:
    from hopline.errors import HoplineError

    try:
        yield
    except HoplineError as error:
        raise CliError(error.code, error.message, hint=error.hint) from error


def _put(status: "StoreStatus", *, as_json: bool) -> None:
    if as_json:
        screen.put_json(_answer(status))
        return
    revision = status.revision or "none"
    for title, value in (
        ("store", Text(one_line(status.store))),
        ("database", Text(one_line(status.database))),
        ("schema", Text(revision if status.state == "current" else f"{revision}; newest is {status.newest}")),
        ("state", Text(status.state, _COLOURS[status.state])),
        ("size", Text(_bytes(status.size_bytes))),
    ):
        screen.put(Text.assemble((title.ljust(10), "bold"), value))


def _answer(status: "StoreStatus") -> dict[str, Any]:
    return {
        "store": status.store,
        "database": status.database,
        "schema": status.revision,
        "newest_schema": status.newest,
        "state": status.state,
        "size_bytes": status.size_bytes,
    }


def _bytes(size: int) -> str:
    """Return a size for people.

    >>> _bytes(0), _bytes(12_345_678)
    ('0.0 MB', '12.3 MB')
    """
    return f"{size / 1e6:.1f} MB"
