"""Blobs as the settings name them, and whether they are those of this store."""

from asyncio import to_thread
from functools import partial
from pathlib import Path
from typing import Final

from hopline.errors import HoplineError
from hopline_engine import clock
from hopline_engine.blobs.place import BlobGoneError, Folder, Place
from hopline_engine.settings import Settings
from hopline_engine.store.interface import Store
from hopline_engine.store.keys import blobs_mark

MARK_NAME: Final = "hopline-store"
"""A file, or object, which says whose blobs are beside it."""


class BlobsError(HoplineError):
    """Large results cannot be kept where the settings say."""

    code = "blobs"


def place_of(settings: Settings) -> Place | None:
    """Return where large results are; ``None`` if all stay in rows.

    Raises:
        BlobsError: a library is missing, or the URL cannot be used.
    """
    named = settings.blobs_place
    if named is None:
        return None
    if "://" not in named:
        return Folder(Path(named))
    from hopline_engine.blobs.bucket import BucketError, open_bucket  # imports obstore, which need not be there

    try:
        return open_bucket(named)
    except BucketError as error:
        raise BlobsError(f"setting 'blobs': {error}", hint=error.hint) from None


async def open_place(settings: Settings, store: Store) -> Place | None:
    """Return where large results are, once it is known that all servers on this store mean the same place.

    Raises:
        BlobsError: it cannot be used, or is another one than other servers on the store use.
    """
    place = place_of(settings)
    if place is None or (isinstance(place, Folder) and store.owner.alone and not settings.blobs):
        return place
    try:
        found = await to_thread(_mark_of, place)
    except Exception as error:
        hint = "it has to be there and writable for the user that the server runs as"
        raise BlobsError(f"large results cannot be kept at {place.shown}: {error}", hint=hint) from error
    known = await store.execute(partial(blobs_mark, offered=found))
    if known != found and not await to_thread(place.has, _proof_of(known)):
        raise BlobsError(
            f"{place.shown} is not where the large results of this store are",
            hint="every server needs the same place: a folder that all machines share, or a bucket",
        )
    return place


def _mark_of(place: Place) -> str:
    """Return what the place is marked with, marking it if it is new."""
    try:
        return place.read(MARK_NAME).decode()
    except BlobGoneError:
        mark = clock.token(16)
        place.write(_proof_of(mark), b"")
        place.write(MARK_NAME, mark.encode())
        return mark


def _proof_of(mark: str) -> str:
    """Return the name of what is only where somebody wrote this mark, which another may have written over since.

    Servers that start for the first time at one moment all find the place without a mark. The store keeps the mark of
    one of them, and by this the others see that it was written here.
    """
    return f"{MARK_NAME}-{mark}"
