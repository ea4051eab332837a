"""Tokens that requests to targets carry: identity tokens signed with a key of this installation, and access tokens.

Targets can verify identity tokens as they verify Google's: the key is published as a JSON Web Key Set, at the address
that the discovery document of the issuer names.
"""

import base64
import hashlib
import json
import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hopline_engine.clock import token
from hopline_engine.core.cloud.delivery import Delivery
from hopline_engine.core.cloud.model import OidcToken

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

LIFE_SECONDS: Final = 3600.0
"""Of an identity token; it is used for half of that."""
KEY_BITS: Final = 2048
DISCOVERY_PATH: Final = "/.well-known/openid-configuration"
KEYS_PATH: Final = "/.well-known/jwks.json"
_MOST_KEPT: Final = 1000

Headers = list[tuple[bytes, bytes]]


class Tokens:
    """Makes tokens, and says how they are verified."""

    def __init__(self, key_path: Path, access_token: str | None, issuer: Callable[[], str]) -> None:
        """Make tokens with the key in a file, which is made when it is needed first.

        Args:
            key_path: of the private key, readable by its owner only.
            access_token: what requests with an OAuth token carry; ``None`` for none.
            issuer: returns the base URL of this installation.
        """
        self._key_path = key_path
        self._access_token = access_token
        self._issuer = issuer
        self._made: dict[tuple[str, str], tuple[float, bytes]] = {}

    def headers(self, delivery: Delivery, now: float) -> Headers:
        """Return the headers with the token that a delivery asks for.

        Raises:
            ValueError: tokens cannot be signed here.
        """
        if delivery.token is None:
            return []
        if not isinstance(delivery.token, OidcToken):
            return [(b"Authorization", b"Bearer " + self._access_token.encode())] if self._access_token else []
        email, audience = delivery.token.service_account_email, delivery.token.audience or delivery.url
        return [(b"Authorization", b"Bearer " + self._identity(email, audience, now))]

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

    def keys(self) -> dict[str, Any]:
        """Return the set of public keys.

        Raises:
            ValueError: tokens cannot be signed here.
        """
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": self._key_id}
        return {"keys": [{**key, "n": _number(numbers.n), "e": _number(numbers.e)}]}

    def _identity(self, email: str, audience: str, now: float) -> bytes:
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
        made = self._signed(claims)
        self._made[email, audience] = (now + LIFE_SECONDS / 2, made)
        return made

    def _signed(self, claims: dict[str, Any]) -> bytes:
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        head = {"alg": "RS256", "kid": self._key_id, "typ": "JWT"}
        content = b".".join(_base64(json.dumps(part, separators=(",", ":")).encode()) for part in (head, claims))
        return content + b"." + _base64(self._key.sign(content, PKCS1v15(), SHA256()))

    @cached_property
    def _key(self) -> "RSAPrivateKey":
        try:
            from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
            from cryptography.hazmat.primitives.serialization import load_pem_private_key
        except ImportError:
            raise ValueError('identity tokens need "cryptography": pip install hopline[oidc]') from None
        if not self._key_path.exists():
            _make_key(self._key_path)
        key = load_pem_private_key(self._key_path.read_bytes(), None)
        if not isinstance(key, RSAPrivateKey):
            raise ValueError(f"{self._key_path} does not hold an RSA key")  # noqa: TRY004 - a file's fault
        return key

    @cached_property
    def _key_id(self) -> str:
        numbers = self._key.public_key().public_numbers()
        return hashlib.sha256(f"{numbers.n}".encode()).hexdigest()[:16]


def _make_key(path: Path) -> None:
    """Write a new key, whole or not at all."""
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    draft = path.with_name(f"{path.name}.{token(4)}.new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    draft.replace(path)


def _number(value: int) -> str:
    return _base64(value.to_bytes((value.bit_length() + 7) // 8, "big")).decode()


def _base64(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")
