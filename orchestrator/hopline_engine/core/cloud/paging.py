"""Page tokens: opaque to clients, good for two hours and for the listing that they were given in."""

import base64
import binascii
import hashlib
import json
from typing import Final

from hopline_engine.core.cloud.errors import invalid

TOKEN_SECONDS: Final = 7200.0


def page_token(last: str, listing: str, now: float) -> str:
    """Return the token of the page after the one that ended with *last*; *listing* says what was listed and how."""
    content = json.dumps([last, _digest(listing), int(now)], separators=(",", ":"))
    return base64.urlsafe_b64encode(content.encode()).decode().rstrip("=")


def last_of(token: str, listing: str, now: float) -> str | None:
    """Return after what the page of *token* begins; ``None`` for an empty token, the first page.

    Raises:
        CloudTasksError: the token is none of ours, is of another listing, or is too old.
    """
    if not token:
        return None
    try:
        content = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (binascii.Error, ValueError):
        raise invalid("The page token is not valid.") from None
    match content:
        case [str(last), str(digest), int(made)] if digest == _digest(listing):
            if now - made > TOKEN_SECONDS:
                raise invalid("The page token has expired.")
            return last
        case [str(), str(), int()]:
            raise invalid("The page token does not belong to this listing; the filter must not change between pages.")
        case _:
            raise invalid("The page token is not valid.")


def page_size(asked: int, most: int) -> int:
    """Return how many to list: 0 is the most.

    Raises:
        CloudTasksError: it is negative.
    """
    if asked < 0:
        raise invalid("Page size must not be negative.")
    return min(asked, most) if asked else most


def _digest(listing: str) -> str:
    return hashlib.blake2b(listing.encode(), digest_size=6).hexdigest()
