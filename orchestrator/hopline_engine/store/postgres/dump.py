"""A copy of a Postgres database, by the server's own program."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from hopline_engine.database_url import DatabaseUrl, parse
from hopline_engine.store.errors import BackupError

_PROGRAM: Final = "pg_dump"


def dump(url: str, target: Path) -> None:
    """Have ``pg_dump`` write the database into a new file, which ``pg_restore`` reads.

    Raises:
        BackupError: the program is not there, or could not do it; the hint is what to run where it can.
    """
    database = parse(url)
    hint = f"on a machine with Postgres's programs: {_PROGRAM} --format=custom --file={target} '{database.shown}'"
    program = shutil.which(_PROGRAM)
    if program is None:
        raise BackupError(str(target), f"{_PROGRAM} is not installed here", hint=hint)
    if target.exists():
        raise BackupError(str(target), "it exists already", hint="name a new file")
    draft = target.with_name(f"{target.name}.{os.getpid()}.new")
    dsn, password = _without_password(database)
    try:
        draft.touch(mode=0o600, exist_ok=False)
        done = subprocess.run(  # noqa: S603 - found on the path, and given what was read from the settings
            [program, "--format=custom", f"--file={draft}", f"--dbname={dsn}"],
            # Arguments of a program can be read by everybody on the machine.
            env=os.environ | ({} if password is None else {"PGPASSWORD": password}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise BackupError(str(target), database.redacted(_last_lines(done.stderr)), hint=hint)
        target.hardlink_to(draft)  # fails if somebody was faster
    except OSError as error:
        raise BackupError(str(target), error.strerror or str(error), hint="check the folder and the disk") from error
    finally:
        draft.unlink(missing_ok=True)


def _without_password(database: DatabaseUrl) -> tuple[str, str | None]:
    parts = urlsplit(database.dsn)
    login, at, hosts = parts.netloc.rpartition("@")
    user, _, password = login.partition(":")
    netloc = f"{quote(unquote(user))}{at}{hosts}"
    return urlunsplit(parts._replace(netloc=netloc)), unquote(password) or None


def _last_lines(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return " ".join(line.removeprefix("pg_dump: ").strip() for line in lines[-3:]) or "pg_dump failed"
