"""Where large results are in a simulation: in a bucket that all nodes share, and that outlives them."""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from hopline_engine.blobs.blobs import Blobs
from hopline_engine.blobs.place import BlobGoneError
from hopline_engine.clock import Clock
from hopline_engine.core.references import filled

INLINE_BYTES = 20
"""Most results are larger."""
SECONDS = 0.1
"""What it takes to ask for a blob, or to keep one, on average."""


class Bucket:
    """Keeps blobs."""

    shown = "a bucket"

    def __init__(self, seed: int) -> None:
        self.random = Random(f"bucket {seed}")
        self._blobs: dict[str, bytes] = {}

    def write(self, name: str, content: bytes) -> None:
        """Keep a blob."""
        self._blobs[name] = content

    def read(self, name: str) -> bytes:
        """Return a blob."""
        if name not in self._blobs:
            raise BlobGoneError(f"{name} is not there")
        return self._blobs[name]

    def has(self, name: str) -> bool:
        """Return whether there is a blob."""
        return name in self._blobs

    def remove(self, name: str) -> None:
        """Remove a blob."""
        self._blobs.pop(name, None)

    def names(self, before: str) -> Iterator[str]:
        """Yield the names of blobs of days before this one."""
        return itertools.takewhile(lambda name: name < before, sorted(self._blobs))

    def whole(self, value: bytes) -> bytes:
        """Return a value of a row with all that it refers to in place."""
        return filled(value, lambda reference: self.read(reference.location))

    def blobs(self, clock: Clock, *, is_used: bool) -> Blobs:
        """Return the blobs of one node."""
        return _DistantBlobs(self, clock) if is_used else Blobs(None, clock, inline_bytes=INLINE_BYTES)


class _DistantBlobs(Blobs):
    def __init__(self, bucket: Bucket, clock: Clock) -> None:
        super().__init__(bucket, clock, inline_bytes=INLINE_BYTES)
        self._random = bucket.random

    async def _ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        await asyncio.sleep(self._random.expovariate(1 / SECONDS))
        return await super()._ask(function, *arguments)
