"""A store looked after from outside, without becoming one of its nodes: its schema, a copy of it, what is old."""

import asyncio
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from hopline_engine import clock
from hopline_engine.settings import Settings
from hopline_engine.store import retention, schema, sqlite_upkeep
from hopline_engine.store.errors import OutdatedSchemaError
from hopline_engine.store.opening import need_drivers
from hopline_engine.store.retention import Pruned


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatus:
    """What a store is."""

    store: str
    """Path, or URL without its password."""
    database: str
    """Name and version of what keeps it."""
    revision: str | None
    """Of the schema; ``None`` where there is none yet."""
    newest: str
    """Revision that this version of Hopline works with."""
    size_bytes: int

    @property
    def state(self) -> Literal["new", "outdated", "current"]:
        """What has to be done: an outdated store is upgraded when it is opened, or by ``upgrade``."""
        return "new" if self.revision is None else "current" if self.revision == self.newest else "outdated"


async def status(settings: Settings) -> StoreStatus:
    """Look at the store that the settings name; nothing is changed.

    Raises:
        StoreError: it cannot be looked at, is something else, or was written by a newer version.
    """
    if settings.is_on_postgres:
        need_drivers()
        from hopline_engine.store.postgres import upkeep

        seen = await upkeep.look(settings.store)
    else:
        seen = await asyncio.to_thread(sqlite_upkeep.look, settings.store_path)
    return StoreStatus(
        store=settings.store_shown,
        database=seen.database,
        revision=seen.revision,
        newest=schema.HEAD,
        size_bytes=seen.size_bytes,
    )


async def upgrade(settings: Settings) -> None:
    """Bring the schema of the store up to the newest revision, making the store if there is none.

    Raises:
        StoreLockedError: a server has the file open.
        StoreError: it cannot be opened, is something else, or was written by a newer version.
    """
    if settings.is_on_postgres:
        need_drivers()
        from hopline_engine.store.postgres import store

        await store.upgrade(settings.store)
    else:
        await asyncio.to_thread(sqlite_upkeep.upgrade, settings.store_path)


async def backup(settings: Settings, target: Path) -> int:
    """Copy the store as it is at this moment into a new file, while servers go on; return how many bytes that has.

    Raises:
        BackupError: the copy could not be made; *target* is not there, or is as it was.
        StoreError: the store cannot be opened.
    """
    if settings.is_on_postgres:
        from hopline_engine.store.postgres import dump

        await asyncio.to_thread(dump.dump, settings.store, target)
    else:
        await asyncio.to_thread(sqlite_upkeep.backup, settings.store_path, target)
    return (await asyncio.to_thread(target.stat)).st_size


async def prune(settings: Settings, *, older_than: float, is_rehearsed: bool) -> Pruned:
    """Delete what ended longer ago than so many seconds, in small transactions, while servers go on; or only count it.

    Raises:
        OutdatedSchemaError: the store has to be upgraded before.
        StoreError: it cannot be opened, is something else, or was written by a newer version.
    """
    known = await status(settings)
    if known.state == "outdated":
        raise OutdatedSchemaError(known.store)
    if known.state == "new":
        return Pruned()
    sweep = partial(retention.sweep, before=clock.now() - older_than, is_rehearsed=is_rehearsed)
    if settings.is_on_postgres:
        from hopline_engine.store.postgres import upkeep

        return await upkeep.change(settings.store, sweep)
    return await asyncio.to_thread(sqlite_upkeep.change, settings.store_path, sweep)
