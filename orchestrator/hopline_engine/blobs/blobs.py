"""Large values out of rows: kept before anything refers to them, and put back where somebody needs them."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from hopline_engine.blobs.place import BlobGoneError, Place
from hopline_engine.clock import Clock
from hopline_engine.core.binding import BindingError
from hopline_engine.core.references import MARK, Reference, filled, references_in

KEPT_BYTES: Final = 64 * 2**20
"""Of the blobs that were used last, kept in memory: what a step returns is mostly needed at once."""

GRACE_DAYS: Final = 2
"""Whole days for which a blob that nothing refers to is left: whoever wrote it may still be about to."""


class Blobs:
    """The large values of an engine."""

    def __init__(self, place: Place | None, clock: Clock, *, inline_bytes: int, in_threads: bool = True) -> None:
        """Make it.

        Args:
            place: where they are; ``None`` if all values stay in rows.
            clock: says which day it is.
            inline_bytes: the largest value that stays in a row.
            in_threads: whether the place is asked in threads, so that the loop does not wait for it.
        """
        self.place = place
        self._clock = clock
        self.inline_bytes: float = inline_bytes if place is not None else float("inf")
        """The largest value that stays in a row; infinite if all do."""
        self._in_threads = in_threads
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._kept_bytes = 0

    async def kept(self, value: bytes) -> bytes:
        """Return what stands for a value in rows: itself if it is small, or a reference to it, which is durable."""
        if self.place is None or len(value) <= self.inline_bytes:
            return value
        day = datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y%m%d")
        reference = Reference(f"{day}/{hashlib.sha256(value).hexdigest()}", len(value))
        await self._ask(self.place.write, reference.location, value)
        self._keep(reference.location, value)
        return reference.raw()

    async def whole(self, value: bytes) -> bytes:
        """Return a value with all that it refers to in place.

        Raises:
            BindingError: something of it is gone.
        """
        if MARK not in value:
            return value
        found: dict[Reference, bytes] = {}
        for one in references_in(value):
            content = self._remembered(one)
            if content is None:
                content = await self._ask(self._read, one)
                self._keep(one.location, content)
            found[one] = content
        return filled(value, found.__getitem__)

    def content(self, reference: Reference) -> bytes:
        """Return what a reference stands for: from memory if it was used lately, else from where it is kept.

        Raises:
            BindingError: it is gone, or is not what it was.
        """
        content = self._remembered(reference)
        if content is None:
            content = self._read(reference)
            self._keep(reference.location, content)
        return content

    def oldest_day(self) -> str:
        """Return the day before which nobody writes a blob any more, nor is about to refer to one just written."""
        return (datetime.fromtimestamp(self._clock.now(), UTC) - timedelta(days=GRACE_DAYS)).strftime("%Y%m%d")

    async def ask(self, function: Callable[[Place], Any]) -> Any:
        """Return what a function says of the place; ``None`` if there is none."""
        return None if self.place is None else await self._ask(function, self.place)

    def _read(self, reference: Reference) -> bytes:
        if self.place is None:
            raise BindingError(
                f"a value of {reference.size:,} bytes is elsewhere, and the setting blobs does not say where"
            )
        try:
            content = self.place.read(reference.location)
        except BlobGoneError as error:
            raise BindingError(f"a value of {reference.size:,} bytes is gone: {error}") from None
        if hashlib.sha256(content).hexdigest() != reference.digest:
            raise BindingError(f"a value of {reference.size:,} bytes is not what was kept: {reference.location}")
        return content

    def _remembered(self, reference: Reference) -> bytes | None:
        content = self._kept.get(reference.location)
        if content is not None:
            self._kept.move_to_end(reference.location)
        return content

    def _keep(self, location: str, content: bytes) -> None:
        if len(content) > KEPT_BYTES or location in self._kept:
            return
        self._kept[location] = content
        self._kept_bytes += len(content)
        while self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1])

    async def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.to_thread(function, *arguments) if self._in_threads else function(*arguments)
