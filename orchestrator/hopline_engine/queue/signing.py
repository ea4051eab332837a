"""Tokens that prove that a callback answers an attempt that this installation started.

A token is an HMAC over run, step and attempt. Nothing is stored per attempt, and a well-signed token of an attempt
that is not known (a restored backup, a replica behind) can be told from a forged one.
"""

import hashlib
import hmac
import stat
from pathlib import Path

from hopline_engine.clock import token
from hopline_engine.disk import write_key
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
        write_key(path, token(32))
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise KeyFileError(f"{path} can be read by others", hint=f"chmod 600 {path}")
    text = path.read_text(encoding="ascii").strip()
    if len(text) < 32:
        raise KeyFileError(f"{path} holds no key", hint="delete it; callbacks of steps that wait now will be refused")
    return text.encode()
