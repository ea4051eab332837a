"""The secrets of an installation: those that the store keeps, and which workflows need which."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import partial
from typing import NamedTuple

from hopline_engine.clock import Clock
from hopline_engine.errors import InvalidSecretError, SecretNotFoundError, SecretsKeyError, closest
from hopline_engine.queue.redacting import SHORTEST
from hopline_engine.queue.sealing import Sealer, SealError, read_keys
from hopline_engine.queue.secrets import SecretMissingError, Secrets, in_definition
from hopline_engine.scheduler.definitions import Catalogue
from hopline_engine.settings import Settings
from hopline_engine.store import secrets
from hopline_engine.store.interface import Store
from hopline_engine.store.secrets import StoredSecret

LONGEST = 65_536
"""Characters of a secret."""


class KeptSecret(NamedTuple):
    """A secret in the store, without its value."""

    name: str
    created_at: float
    updated_at: float
    used_by: list[str]
    """Names of workflows."""


class Missing(NamedTuple):
    """A secret that a workflow needs and that has no value."""

    message: str
    used_by: list[str]


class SecretBook:
    """Keeps secrets in the store, and reads them where a request is made."""

    def __init__(
        self, *, store: Store, catalogue: Catalogue, clock: Clock, settings: Settings, resolver: Secrets
    ) -> None:
        """Make it; from now on *resolver* finds what the store keeps."""
        self._store = store
        self._catalogue = catalogue
        self._clock = clock
        self._settings = settings
        self._resolver = resolver
        resolver.stored = self.values

    async def values(self, names: Collection[str]) -> Mapping[str, str]:
        """Return the values of those of the names that the store has.

        Raises:
            SecretMissingError: one of them is there and cannot be read.
        """
        rows = await self._store.read(partial(secrets.by_names, names=names))
        if not rows:
            return {}
        try:
            sealer = self._sealer()
            return {row.name: sealer.open(row.name, row.sealed) for row in rows}
        except SealError as error:
            raise SecretMissingError(f"{error}; {error.hint}") from None

    async def all_kept(self) -> list[KeptSecret]:
        """Return the secrets in the store, by name."""
        used = self._used()
        return [
            KeptSecret(row.name, row.created_at, row.updated_at, sorted({*used[row.name], *used[f"store:{row.name}"]}))
            for row in await self._store.read(secrets.all_secrets)
        ]

    async def missing(self) -> list[Missing]:
        """Return what workflows need and has no value here, by name."""
        found = []
        for name, workflows in sorted(self._used().items()):
            try:
                await self._resolver.values([name])
            except SecretMissingError as error:
                found.append(Missing(str(error), sorted(workflows)))
        return found

    async def put(self, name: str, value: str) -> KeptSecret:
        """Keep a secret, in place of the one of this name if there is one.

        Raises:
            InvalidSecretError
            SecretsKeyError
        """
        if not SHORTEST <= len(value) <= LONGEST:
            raise InvalidSecretError(
                secret=name, problem=f"it has {len(value)} characters, and needs {SHORTEST} to {LONGEST:,}"
            )
        now = self._clock.now()
        try:
            row = StoredSecret(name, self._sealer().seal(name, value), now, now)
        except SealError as error:
            raise SecretsKeyError(str(error), hint=error.hint) from None
        await self._store.execute(partial(secrets.put, rows=[row]))
        return next(kept for kept in await self.all_kept() if kept.name == name)

    async def remove(self, name: str) -> KeptSecret:
        """Forget a secret, and return what it was.

        Raises:
            SecretNotFoundError
        """
        known = {kept.name: kept for kept in await self.all_kept()}
        if name not in known or not await self._store.execute(partial(secrets.remove, name=name)):
            raise SecretNotFoundError(secret=name, did_you_mean=closest(name, known))
        return known[name]

    async def rotate(self) -> int:
        """Encrypt with the first key what another one encrypted; return how many secrets that were.

        Raises:
            SecretsKeyError: one of them cannot be read; then nothing is changed.
        """
        rows = await self._store.read(secrets.all_secrets)
        try:
            sealer = self._sealer()
            old = [row for row in rows if sealer.key_of(row.sealed) != sealer.first]
            new = [row._replace(sealed=sealer.seal(row.name, sealer.open(row.name, row.sealed))) for row in old]
        except SealError as error:
            raise SecretsKeyError(str(error), hint=error.hint) from None
        before = {row.name: row.sealed for row in old}
        await self._store.execute(partial(secrets.replace, rows=new, before=before))
        return len(new)

    def _sealer(self) -> Sealer:
        return Sealer(read_keys(self._settings.secrets_key, self._settings.secrets_key_file))

    def _used(self) -> Mapping[str, set[str]]:
        """Return which workflows need which secret, by its name."""
        used: dict[str, set[str]] = defaultdict(set)
        for plan in self._catalogue.all_current():
            for name in in_definition(self._catalogue.body(plan.digest)):
                used[name].add(plan.name)
        return used
