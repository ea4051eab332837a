"""Opening a store: by one process at a time, only if it is one, with the schema and the settings it needs."""

import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine

from hopline_engine.store import lock, runs
from hopline_engine.store.errors import (
    CannotOpenError,
    NetworkFileSystemError,
    NotAStoreError,
    StoreLockedError,
    UnknownSchemaError,
)
from hopline_engine.store.interface import Owner
from hopline_engine.store.lock import file_system
from hopline_engine.store.sqlite import SQLiteStore, open_store
from tests.store.children import child
from tests.store.opened import FILE, column, commit, looking_into, opened_sqlite, with_definition
from tests.store.rows import NOW, started

pytestmark = pytest.mark.anyio


async def owner_of(folder: Path, node: str = "n_test") -> Owner:
    """Open the store in *folder*, close it, and return as whom it was open."""
    async with opened_sqlite(folder, node=node) as store:
        return store.owner


def mode(path: Path) -> int:
    """Return who may do what with a file."""
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    """Return what is in a folder."""
    return sorted(path.name for path in folder.iterdir())


def make_folder(path: Path, permissions: int) -> None:
    """Make a folder that exactly those may use."""
    path.mkdir()
    path.chmod(permissions)


# --- one process at a time --------------------------------------------------------------------------------------------


async def test_a_second_process_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    with child(tmp_path) as process, pytest.raises(StoreLockedError) as refused:
        await owner_of(tmp_path)

    assert refused.value.pid == process.pid
    assert f"process {process.pid}" in str(refused.value)
    assert "server" in (refused.value.hint or "")


async def test_a_refused_process_leaves_the_owner_as_it_was(tmp_path: Path) -> None:
    async with opened_sqlite(tmp_path) as store:
        await with_definition(store)
        with pytest.raises(StoreLockedError):
            await owner_of(tmp_path)

        await commit(store, started(1))


async def test_a_store_is_free_as_soon_as_its_holder_was_killed(tmp_path: Path) -> None:
    with child(tmp_path) as process:
        process.kill()

    owner = await owner_of(tmp_path)

    assert owner.epoch == 2


async def test_a_store_is_free_once_it_was_closed(tmp_path: Path) -> None:
    await owner_of(tmp_path)

    with child(tmp_path):
        pass


async def test_a_store_that_could_not_be_opened_is_not_left_locked(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("notes")
    with pytest.raises(NotAStoreError):
        await owner_of(tmp_path)
    (tmp_path / FILE).unlink()

    await owner_of(tmp_path)


# --- owners -----------------------------------------------------------------------------------------------------------


async def test_the_epoch_rises_with_every_owner_and_the_store_keeps_its_id(tmp_path: Path) -> None:
    first, second, third = [await owner_of(tmp_path, node) for node in ("n_1", "n_2", "n_3")]

    assert [first.epoch, second.epoch, third.epoch] == [1, 2, 3]
    assert [first.node, second.node, third.node] == ["n_1", "n_2", "n_3"]
    assert len({first.store_id, second.store_id, third.store_id}) == 1
    with looking_into(tmp_path) as raw:
        assert raw.execute("SELECT id, epoch FROM node").fetchall() == [("n_3", 3)]


async def test_two_stores_have_different_ids(tmp_path: Path) -> None:
    assert (await owner_of(tmp_path / "a")).store_id != (await owner_of(tmp_path / "b")).store_id


async def test_the_owner_says_where_it_is_reached(tmp_path: Path) -> None:
    store = await open_store(tmp_path / FILE, node="n_1", clock=lambda: NOW, url="http://127.0.0.1:8484")
    await store.close()

    with looking_into(tmp_path) as raw:
        assert raw.execute("SELECT url, started_at, heartbeat_at FROM node").fetchall() == [
            ("http://127.0.0.1:8484", NOW, NOW)
        ]


# --- files ------------------------------------------------------------------------------------------------------------


async def test_files_and_a_new_folder_are_their_owner_s_only(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    async with opened_sqlite(folder) as store:
        await with_definition(store)

        assert mode(folder) == 0o700
        assert {path.name: mode(path) for path in folder.iterdir()} == dict.fromkeys(
            [FILE, f"{FILE}-wal", f"{FILE}-shm", f"{FILE}-lock"], 0o600
        )


async def test_a_store_that_others_could_read_becomes_private(tmp_path: Path) -> None:
    await owner_of(tmp_path)
    (tmp_path / FILE).chmod(0o644)

    await owner_of(tmp_path)

    assert mode(tmp_path / FILE) == 0o600


async def test_an_existing_folder_stays_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    make_folder(folder, 0o755)

    await owner_of(folder)

    assert mode(folder) == 0o755


async def test_a_closed_store_is_one_file_and_its_lock(tmp_path: Path) -> None:
    async with opened_sqlite(tmp_path) as store:
        await with_definition(store)
        await commit(store, started(1))

    assert names(tmp_path) == [FILE, f"{FILE}-lock"]


async def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / FILE).touch()

    assert (await owner_of(tmp_path)).epoch == 1


async def test_a_folder_is_not_a_store(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()

    with pytest.raises(CannotOpenError, match=FILE):
        await owner_of(tmp_path)


async def test_a_path_below_a_file_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(CannotOpenError, match=r"Not a directory|File exists"):
        await owner_of(tmp_path / "file")


def _text(path: Path) -> None:
    path.write_text("no database at all\n" * 400)


def _somebody_s_database(path: Path) -> None:
    raw = sqlite3.connect(path)
    raw.execute("CREATE TABLE song (title)")
    raw.commit()
    raw.close()


@pytest.mark.parametrize("write", [_text, _somebody_s_database])
async def test_a_file_that_is_something_else_is_refused_and_unchanged(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    path = tmp_path / FILE
    write(path)
    path.chmod(0o644)
    before = path.read_bytes()

    with pytest.raises(NotAStoreError, match=FILE):
        await owner_of(tmp_path)

    assert path.read_bytes() == before
    assert mode(path) == 0o644
    assert names(tmp_path) == [FILE, f"{FILE}-lock"]


async def test_a_store_of_a_newer_version_is_refused_and_unchanged(tmp_path: Path) -> None:
    await owner_of(tmp_path)
    with looking_into(tmp_path) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    before = (tmp_path / FILE).read_bytes()

    with pytest.raises(UnknownSchemaError) as refused:
        await owner_of(tmp_path)

    assert refused.value.revision == "9999"
    assert (tmp_path / FILE).read_bytes() == before


async def test_a_store_on_a_network_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:5 / {tmp_path}/home rw - nfs4 host:/home rw\n")
    monkeypatch.setattr(lock, "_MOUNTS", mounts)

    with pytest.raises(NetworkFileSystemError, match="nfs4"):
        await owner_of(tmp_path / "home" / "me")

    assert names(tmp_path) == [mounts.name]
    await owner_of(tmp_path / "local")


def test_the_file_system_of_a_path_is_that_of_its_nearest_and_last_mount() -> None:
    mounts = """\
1 0 8:1 / / rw - ext4 /dev/a rw
2 1 8:2 / /my\\040data rw,shared:1 master:2 - xfs /dev/b rw
3 2 0:5 / /my\\040data/far rw - cifs //host/far rw
4 2 0:6 / /my\\040data/far rw - btrfs /dev/c rw
"""

    assert file_system(mounts, Path("/home/x.db")) == "ext4"
    assert file_system(mounts, Path("/my data/x.db")) == "xfs"
    assert file_system(mounts, Path("/my database/x.db")) == "ext4"
    assert file_system(mounts, Path("/my data/far/x.db")) == "btrfs"


@pytest.mark.parametrize("name", ["Läden", "a\u2028b", "\udcff"])
def test_the_file_system_of_a_path_is_found_whatever_its_mount_is_called(name: str) -> None:
    mounts = f"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:5 / /{name} rw - nfs4 host:/x rw\n"

    assert file_system(mounts, Path(f"/{name}/x.db")) == "nfs4"


# --- settings ---------------------------------------------------------------------------------------------------------

SETTINGS = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "wal_autocheckpoint": 0, "busy_timeout": 0}


async def test_the_connection_that_writes_flushes_every_commit_and_keeps_references(sqlite_store: SQLiteStore) -> None:
    def settings(connection: Connection) -> dict[str, object]:
        return {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in SETTINGS}

    assert await sqlite_store.execute(settings) == SETTINGS


async def test_connections_that_read_cannot_write(sqlite_store: SQLiteStore) -> None:
    with pytest.raises(Exception, match="readonly"):
        await sqlite_store.read(lambda connection: connection.exec_driver_sql("DELETE FROM definition"))


async def test_what_a_store_has_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    async with opened_sqlite(tmp_path) as store:
        await with_definition(store)
        await commit(store, started(1))

    async with opened_sqlite(tmp_path) as store:
        assert await store.read(lambda connection: runs.resolve(connection, "@last")) == 1


async def test_a_path_may_have_any_character(tmp_path: Path) -> None:
    folder = tmp_path / "a b%20?c#d é"

    async with opened_sqlite(folder) as store:
        await with_definition(store)
        await commit(store, started(1))
        assert await store.read(lambda connection: runs.resolve(connection, "@last")) == 1

    with looking_into(folder) as raw:
        assert column(raw, "SELECT id FROM run") == [1]


async def test_opening_twice_at_the_same_schema_changes_no_table(tmp_path: Path) -> None:
    await owner_of(tmp_path)
    engine = create_engine(f"sqlite:///{tmp_path / FILE}")
    with engine.connect() as connection:
        before = connection.exec_driver_sql("SELECT sql FROM sqlite_master ORDER BY name").all()
        await owner_of(tmp_path)
        assert connection.exec_driver_sql("SELECT sql FROM sqlite_master ORDER BY name").all() == before
    engine.dispose()
