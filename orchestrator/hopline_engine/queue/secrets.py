"""Values of secrets by name, read where a request is made and at no other place.

A name may say where its value is, as in ``env:TOKEN``, ``file:TOKEN`` and ``store:TOKEN``. One that does not is looked
for in that order: a variable ``HOPLINE_SECRET_TOKEN``, a file ``TOKEN`` in the folder of secrets, the store.
"""

import contextlib
import os
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

PREFIX: Final = "HOPLINE_SECRET_"
"""What the variables begin with that are meant for it; others cannot be read by name."""

FILE_BYTES: Final = 65_536


class SecretMissingError(Exception):
    """A request needs a secret that has no value here; the message says where one is looked for."""


Stored = Callable[[Collection[str]], Awaitable[Mapping[str, str]]]
"""Returns the values of those of the names that the store has."""


async def nothing_stored(_: Collection[str]) -> Mapping[str, str]:
    """Return no value: there is no store."""
    return {}


class Secrets:
    """Where secrets are."""

    def __init__(
        self, given: Mapping[str, str], *, folder: Path | None = None, stored: Stored = nothing_stored
    ) -> None:
        """Make it.

        Args:
            given: values by name, as from variables.
            folder: whose files are secrets, each by its name.
            stored: asks the store.
        """
        self._given = given
        self._folder = folder
        self.stored = stored

    async def values(self, names: Collection[str]) -> dict[str, str]:
        """Return the value of each name.

        Raises:
            SecretMissingError: one of them has none.
        """
        found = self._here(names)
        found |= await self._elsewhere(names, found)
        for name in names:
            if name not in found:
                raise SecretMissingError(f"secret {name!r} is not set; {self._advice(name)}")
        return found

    async def known(self, names: Collection[str]) -> dict[str, str]:
        """Return the values of those that have one and can be read."""
        found = self._here(names)
        with contextlib.suppress(SecretMissingError):
            found |= await self._elsewhere(names, found)
        return found

    def _here(self, names: Collection[str]) -> dict[str, str]:
        return {name: value for name in names if (value := self._local(name)) is not None}

    async def _elsewhere(self, names: Collection[str], found: Mapping[str, str]) -> dict[str, str]:
        left = {name: name.removeprefix("store:") for name in names if name not in found}
        wanted = {bare for bare in left.values() if ":" not in bare}
        stored = await self.stored(wanted) if wanted else {}
        return {name: stored[bare] for name, bare in left.items() if bare in stored}

    def _local(self, name: str) -> str | None:
        source, _, bare = name.rpartition(":")
        if source in {"", "env"} and bare in self._given:
            return self._given[bare]
        return self._in_file(bare) if source in {"", "file"} else None

    def _in_file(self, name: str) -> str | None:
        if self._folder is None:
            return None
        path = Path(os.path.normpath(self._folder / name))
        if path.parent != Path(os.path.normpath(self._folder)):
            return None
        try:
            with path.open(encoding="utf-8") as file:
                return file.read(FILE_BYTES).removesuffix("\n")
        except (OSError, UnicodeDecodeError):
            return None

    def _advice(self, name: str) -> str:
        source, _, bare = name.rpartition(":")
        places = {
            "env": f"set {PREFIX}{bare} where the engine runs",
            "file": f"put it into {bare if bare.startswith('/') else f'{self._folder}/{bare}'}"
            + (f", which must be in secrets_dir, {self._folder}" if bare.startswith("/") else ""),
            "store": f"hopline secrets set {bare}",
        }
        return places[source] if source in places else f"{places['env']}, or: {places['store']}"


def from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the secrets in variables that are meant for it: ``secret("TOKEN")`` is ``HOPLINE_SECRET_TOKEN``."""
    return {name.removeprefix(PREFIX): value for name, value in environment.items() if name.startswith(PREFIX)}


def in_definition(value: object) -> Iterator[str]:
    """Yield the names of the secrets in a definition's JSON, each as often as it stands there."""
    if isinstance(value, list):
        for member in value:
            yield from in_definition(member)
    elif isinstance(value, dict):
        if value.keys() == {"$secret"} and isinstance(value["$secret"], str):
            yield value["$secret"]
        elif "$literal" not in value:
            for member in value.values():
                yield from in_definition(member)
