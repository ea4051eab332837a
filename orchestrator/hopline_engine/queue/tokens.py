"""Tokens that requests to targets carry: identity tokens signed with a key of this installation, and access tokens.

Targets can verify identity tokens as they verify Google's: the key is published as a JSON Web Key Set, at the address
that the discovery document of the issuer names.
"""

import asyncio
import base64
import hashlib
import json
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hopline_engine.core.cloud.delivery import Delivery
from hopline_engine.core.cloud.model import OidcToken
from hopline_engine.disk import write_key
from hopline_engine.store.interface import Store
from hopline_engine.store.keys import identity_key, known_identity_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

LIFE_SECONDS: Final = 3600.0
"""Of an identity token; it is used for half of that."""
KEY_BITS: Final = 2048
DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
KEYS_PATH: Final = "/.well-known/jwks.json"
_MOST_KEPT: Final = 1000
_MISSING: Final = 'identity tokens need "cryptography": pip install hopline[oidc]'

Headers = list[tuple[bytes, bytes]]


class Tokens:
    """Makes tokens, and says how they are verified."""

    def __init__(
        self, load_key: Callable[[], Awaitable[str]], access_token: str | None, issuer: Callable[[], str]
    ) -> None:
        """Make tokens with a key that is loaded when it is needed first.

        Args:
            load_key: returns the private key as PEM.
            access_token: what requests with an OAuth token carry; ``None`` for none.
            issuer: returns the base URL of this installation.
        """
        self._load_key = load_key
        self._loading = asyncio.Lock()
        self._key: RSAPrivateKey | None = None
        self._access_token = access_token
        self._issuer = issuer
        self._made: dict[tuple[str, str], tuple[float, bytes]] = {}

    async def headers(self, delivery: Delivery, now: float) -> Headers:
        """Return the headers with the token that a delivery asks for.

        Raises:
            ValueError: tokens cannot be signed here.
        """
        if delivery.token is None:
            return []
        if not isinstance(delivery.token, OidcToken):
            return [(b"Authorization", b"Bearer " + self._access_token.encode())] if self._access_token else []
        email, audience = delivery.token.service_account_email, delivery.token.audience or delivery.url
        return [(b"Authorization", b"Bearer " + self._identity(await self._loaded(), email, audience, now))]

    def discovery(self) -> dict[str, Any]:
        """Return the discovery document of the issuer."""
        issuer = self._issuer()
        return {
            "issuer": issuer,
            "jwks_uri": f"{issuer}{KEYS_PATH}",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    async def keys(self) -> dict[str, Any]:
        """Return the set of public keys.

        Raises:
            ValueError: tokens cannot be signed here.
        """
        loaded = await self._loaded()
        numbers = loaded.public_key().public_numbers()
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": _key_id(loaded)}
        return {"keys": [{**key, "n": _number(numbers.n), "e": _number(numbers.e)}]}

    def _identity(self, key: "RSAPrivateKey", email: str, audience: str, now: float) -> bytes:
        until, made = self._made.get((email, audience), (0.0, b""))
        if now < until:
            return made
        claims = {
            "iss": self._issuer(),
            "aud": audience,
            "azp": email,
            "sub": email,
            "email": email,
            "email_verified": True,
            "iat": int(now),
            "exp": int(now + LIFE_SECONDS),
        }
        if len(self._made) >= _MOST_KEPT:  # audiences may be URLs that never come again
            self._made.clear()
        made = _signed(key, claims)
        self._made[email, audience] = (now + LIFE_SECONDS / 2, made)
        return made

    async def _loaded(self) -> "RSAPrivateKey":
        async with self._loading:
            if self._key is None:
                self._key = await asyncio.to_thread(_read_key, await self._load_key())
            return self._key


def key_in_file(path: Path) -> str:
    """Return the private key in a file that only its owner can read, making it when there is none.

    Raises:
        ValueError: what that needs is not installed.
    """
    if not path.exists():
        write_key(path, new_key())
    return path.read_text(encoding="ascii")


async def key_in_store(store: Store) -> str:
    """Return the private key that all nodes of a store share, making it when there is none.

    Raises:
        ValueError: what that needs is not installed.
    """
    known = await store.read(known_identity_key)
    if known is not None:
        return known
    return await store.execute(partial(identity_key, offered=await asyncio.to_thread(new_key)))


def new_key() -> str:
    """Return a new private key as PEM.

    Raises:
        ValueError: what that needs is not installed.
    """
    try:
        from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    except ImportError:
        raise ValueError(_MISSING) from None
    key = generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _read_key(text: str) -> "RSAPrivateKey":
    try:
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError:
        raise ValueError(_MISSING) from None
    key = load_pem_private_key(text.encode(), None)
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("the key that signs identity tokens is no RSA key")  # noqa: TRY004 - the fault of what is kept
    return key


def _key_id(key: "RSAPrivateKey") -> str:
    numbers = key.public_key().public_numbers()
    return hashlib.sha256(f"{numbers.n}".encode()).hexdigest()[:16]


def _signed(key: "RSAPrivateKey", claims: dict[str, Any]) -> bytes:
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    head = {"alg": "RS256", "kid": _key_id(key), "typ": "JWT"}
    content = b".".join(_base64(json.dumps(part, separators=(",", ":")).encode()) for part in (head, claims))
    return content + b"." + _base64(key.sign(content, PKCS1v15(), SHA256()))


def _number(value: int) -> str:
    return _base64(value.to_bytes((value.bit_length() + 7) // 8, "big")).decode()


def _base64(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")
