"""Blobs in a bucket of an object store, by ``obstore`` (``hopline[s3]``): S3 and what speaks its API, GCS, Azure."""

from collections.abc import Iterator
from typing import Any

from hopline_engine.blobs.place import BlobGoneError


class BucketError(Exception):
    """A bucket cannot be used; the message says why and the hint what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def open_bucket(url: str) -> "Bucket":
    """Return the bucket at a URL, with the credentials that the environment has for its kind.

    Raises:
        BucketError: ``obstore`` is not there, or does not know the URL.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError:
        raise BucketError("a bucket needs the library obstore", "pip install hopline[s3]") from None
    try:
        return Bucket(url, from_url(url))
    except (BaseError, ValueError) as error:
        raise BucketError(f"{url} cannot be used: {error}", "write s3://BUCKET/PREFIX or gs://BUCKET/PREFIX") from None


class Bucket:
    """A bucket, or a part of one."""

    def __init__(self, url: str, store: Any) -> None:
        self._url = url
        self._store = store

    @property
    def shown(self) -> str:
        """Where it is."""
        return self._url

    def write(self, name: str, content: bytes) -> None:
        """Keep a blob; the store answers when it is durable."""
        self._store.put(name, content)

    def read(self, name: str) -> bytes:
        """Return a blob.

        Raises:
            BlobGoneError
        """
        try:
            return bytes(self._store.get(name).bytes())
        except FileNotFoundError:
            raise BlobGoneError(f"{self._url.rstrip('/')}/{name} is not there") from None

    def has(self, name: str) -> bool:
        """Return whether there is a blob."""
        try:
            self._store.head(name)
        except FileNotFoundError:
            return False
        return True

    def remove(self, name: str) -> None:
        """Remove a blob, if it is there."""
        try:
            self._store.delete(name)
        except FileNotFoundError:
            return

    def names(self, before: str) -> Iterator[str]:
        """Yield the names of blobs of days before this one."""
        for page in self._store.list():
            yield from sorted(each["path"] for each in page if "/" in each["path"] and each["path"] < before)
