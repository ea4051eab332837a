"""Values of secrets as the store keeps them: encrypted with a key that is outside it.

AES-256 in GCM, with the name as associated data, so that a value cannot be given to another name. There may be several
keys: the first one encrypts, and what any of them encrypted can be read. Needs ``cryptography`` (``hopline[secrets]``).
"""

import base64
import binascii
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from hopline_engine import clock

KEY_BYTES: Final = 32
MAKE_A_KEY: Final = "make one with: openssl rand -base64 32"
_ID_BYTES: Final = 8
_NONCE_BYTES: Final = 12
_VERSION: Final = b"\x01"


class SealError(Exception):
    """A secret cannot be encrypted or read; the message says why and the hint what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Sealer:
    """Encrypts and reads the values of secrets."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._keys = {_id(key): key for key in keys}

    @property
    def first(self) -> bytes:
        """The name of the key that encrypts.

        Raises:
            SealError: there is none.
        """
        for found in self._keys:
            return found
        raise SealError("there is no key for secrets in the store", f"set HOPLINE_SECRETS_KEY; {MAKE_A_KEY}")

    def seal(self, name: str, value: str) -> bytes:
        """Return a value as it is stored.

        Raises:
            SealError: there is no key, or no ``cryptography``.
        """
        nonce = bytes.fromhex(clock.token(_NONCE_BYTES))
        head = _VERSION + self.first
        body: bytes = _cipher(self._keys[self.first]).encrypt(nonce, value.encode(), head + name.encode())
        return head + nonce + body

    def open(self, name: str, sealed: bytes) -> str:
        """Return the value that was stored.

        Raises:
            SealError: its key is not here, or it was changed.
        """
        start = len(_VERSION) + _ID_BYTES
        head, nonce, body = sealed[:start], sealed[start : start + _NONCE_BYTES], sealed[start + _NONCE_BYTES :]
        key = self._keys.get(self.key_of(sealed))
        if key is None or sealed[:1] != _VERSION:
            raise SealError(
                f"secret {name!r} was encrypted with a key that is not here", "add the key to HOPLINE_SECRETS_KEY"
            )
        cipher = _cipher(key)
        from cryptography.exceptions import InvalidTag

        try:
            opened: bytes = cipher.decrypt(nonce, body, head + name.encode())
        except InvalidTag:
            message = f"secret {name!r} cannot be decrypted: what is stored was changed"
            raise SealError(message, f"set it again: hopline secrets set {name}") from None
        return opened.decode()

    @staticmethod
    def key_of(sealed: bytes) -> bytes:
        """Return the name of the key that a value was encrypted with."""
        return sealed[len(_VERSION) : len(_VERSION) + _ID_BYTES]


def read_keys(texts: Iterable[str], file: Path | None) -> list[bytes]:
    """Return the keys in a setting, and then those in a file with one in each line.

    Raises:
        SealError: one of them is no key, or the file cannot be read.
    """
    lines = list(texts)
    if file is not None:
        try:
            lines += file.read_text(encoding="ascii").split()
        except (OSError, UnicodeDecodeError) as error:
            raise SealError(f"the file of keys, {file}, cannot be read: {error}", MAKE_A_KEY) from None
    return [_key(line) for line in lines]


def _key(text: str) -> bytes:
    try:
        key = base64.b64decode(text.strip().translate({ord("-"): "+", ord("_"): "/"}), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise SealError(f"a key for secrets is {KEY_BYTES} bytes in base64, and one of them is not", MAKE_A_KEY)
    return key


def _id(key: bytes) -> bytes:
    return hashlib.sha256(b"hopline key " + key).digest()[:_ID_BYTES]


def _cipher(key: bytes):  # type: ignore[no-untyped-def]  # noqa: ANN202 - of a library that need not be there
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise SealError(
            'secrets in the store need "cryptography"', "pip install hopline[secrets], where the engine runs"
        ) from None
    return AESGCM(key)
