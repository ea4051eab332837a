"""Tokens that prove that a callback answers an attempt that this installation started.

A token is an HMAC over run, step and attempt. Nothing is stored per attempt, and a well-signed token of an attempt
that is not known (a restored backup, a replica behind) can be told from a forged one.
"""

import contextlib
import hashlib
import hmac
import os
import stat
from pathlib import Path

from hopline_engine.clock import token
from hopline_engine.disk import flush
from hopline_engine.errors import KeyFileError


class Signer:
    """Makes and checks callback tokens, and ids of traces, under the key of the installation."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._installation = hashlib.blake2b(key[:64], digest_size=4).hexdigest()

    def sign(self, run: str, step: str, attempt: int) -> str:
        """Return the token of one attempt: 64 hexadecimal digits."""
        return hmac.digest(self._key, f"{run}\n{step}\n{attempt}".encode(), "sha256").hex()

    def is_signed(self, given: str, run: str, step: str, attempt: int) -> bool:
        """Return whether a token is that of an attempt; takes the same time whether right or wrong."""
        return hmac.compare_digest(given.encode(), self.sign(run, step, attempt).encode())

    def traceparent(self, run: str, task: int, attempt: int) -> str:
        """Return the W3C trace context of one attempt: a trace per run, a span per attempt.

        The twelve characters of the run's id are in the trace's, and the task's number in the span's: nothing has to be
        hashed for each request, and either can be found from the other.
        """
        return f"00-{self._installation}{run.encode().hex()}-{task & 0xFFFF_FFFF_FFFF:012x}{attempt & 0xFFFF:04x}-01"


def load_key(path: Path) -> bytes:
    """Return the key in a file that only its owner may read; make it when there is none.

    Raises:
        KeyFileError: the file can be read by others, or holds no key.
    """
    if not path.exists():
        _make_key(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise KeyFileError(f"{path} can be read by others", hint=f"chmod 600 {path}")
    text = path.read_text(encoding="ascii").strip()
    if len(text) < 32:
        raise KeyFileError(f"{path} holds no key", hint="delete it; callbacks of steps that wait now will be refused")
    return text.encode()


def _make_key(path: Path) -> None:
    """Write a new key to *path*, whole or not at all, unless another process was first."""
    draft = path.with_name(f"{path.name}.{token(4)}.new")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(token(32))
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(draft)
        flush(path.parent)
    finally:
        draft.unlink(missing_ok=True)
