"""The workflows that the engine knows: plans by version, and which version of a name is the newest."""

import hashlib
import json
import logging
from collections import ChainMap
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from functools import partial
from typing import Any, NamedTuple

import msgspec

from hopline.errors import HoplineError
from hopline_engine.core.model import Digest
from hopline_engine.core.plan import Plan, PlanError
from hopline_engine.core.planning import build_plan, child_digests
from hopline_engine.errors import (
    InvalidDefinitionError,
    NotFoundError,
    StillLoadingError,
    UnusableDefinitionError,
    WorkflowNotFoundError,
    closest,
)
from hopline_engine.store import definitions
from hopline_engine.store.definitions import StoredDefinition
from hopline_engine.store.interface import Reads

log = logging.getLogger(__name__)


class Checked(NamedTuple):
    """Definitions that can be run, and are not stored yet."""

    definitions: list[StoredDefinition]
    plans: Mapping[Digest, Plan]
    """By digest."""


async def _know_all() -> None:
    """Learn nothing: nobody else registers workflows."""


class Catalogue:
    """Plans in memory; every definition they come from is stored."""

    def __init__(self, store: Reads) -> None:
        self._store = store
        self._plans: dict[Digest, Plan] = {}
        self._bodies: dict[Digest, bytes] = {}
        self._current: dict[str, Digest] = {}
        self.unusable: dict[Digest, str] = {}
        """Stored versions that this engine cannot run, and why: another one wrote them, or they are damaged."""
        self.is_loading = False
        """Whether files are being loaded of which the workflows will be registered when they are."""
        self.catch_up: Callable[[], Awaitable[None]] = _know_all
        """Learns of workflows that other nodes have registered."""

    def current(self, name: str) -> Plan:
        """Return the newest version of a workflow.

        Raises:
            WorkflowNotFoundError
            UnusableDefinitionError
        """
        digest = self._current.get(name)
        if digest is None:
            raise WorkflowNotFoundError(workflow=name, did_you_mean=closest(name, self._current))
        return self.plan(digest)

    async def find(self, name: str) -> Plan:
        """Return the newest version of a workflow, which another node may have registered just now.

        Raises:
            WorkflowNotFoundError
            StillLoadingError
            UnusableDefinitionError
        """
        if not self.has(name):
            await self.catch_up()
        try:
            return self.current(name)
        except WorkflowNotFoundError as error:
            raise self.missing(error) from None

    def has(self, name: str) -> bool:
        """Return whether a workflow is known."""
        return name in self._current

    def missing(self, error: NotFoundError) -> HoplineError:
        """Return what to say of something that files may have: *error*, or that they are still being loaded."""
        return StillLoadingError(missing=str(error)) if self.is_loading else error

    def all_current(self) -> list[Plan]:
        """Return the newest version of every workflow that can be run, by name."""
        plans = [self._plans.get(self._current[name]) for name in sorted(self._current)]
        return [plan for plan in plans if plan is not None]

    def plan(self, digest: Digest) -> Plan:
        """Return a version that was loaded.

        Raises:
            UnusableDefinitionError
        """
        found = self._plans.get(digest)
        if found is None:
            raise UnusableDefinitionError(digest=digest, reason=self.unusable.get(digest, "it is not stored"))
        return found

    async def plan_of(self, digest: Digest) -> Plan:
        """Return a stored version, loading it if it is not in memory.

        Raises:
            UnusableDefinitionError
        """
        await self.load({digest})
        return self.plan(digest)

    def has_plan(self, digest: Digest) -> bool:
        """Return whether a version was loaded and can be run."""
        return digest in self._plans

    def body(self, digest: Digest) -> dict[str, Any]:
        """Return a definition as decoded JSON."""
        return msgspec.json.decode(self._bodies[digest], type=dict[str, Any])

    def is_current(self, newest: Mapping[str, Digest]) -> bool:
        """Return whether these versions are the newest that are known."""
        return newest.items() <= self._current.items()

    async def load_current(self) -> None:
        """Load the newest version of every workflow, with all that they call."""
        newest = {stored.name: stored.digest for stored in await self._store.read(definitions.current)}
        await self.load(set(newest.values()))
        self.set_current(newest)

    async def load(self, digests: set[Digest]) -> None:
        """Load stored versions, with all that they call, unless they are in memory.

        One that cannot be run is noted in ``unusable``, and keeps nothing else from being loaded.
        """
        loaded: dict[Digest, StoredDefinition] = {}
        missing = digests - self._plans.keys() - self.unusable.keys()
        while missing:
            wanted = sorted(missing)
            found = await self._store.read(partial(definitions.by_digests, digests=wanted))
            loaded.update({stored.digest: stored for stored in found})
            called = {child for stored in found for child in _called_by(stored)}
            missing = called - loaded.keys() - self._plans.keys()
        self.unusable.update(add_plans(loaded.values(), self._plans))
        self._bodies.update({digest: definition.body for digest, definition in loaded.items()})

    def set_current(self, current: Mapping[str, Digest]) -> None:
        """Make versions the newest of their names."""
        self._current.update(current)

    def check(self, given: Iterable[Mapping[str, Any]]) -> Checked:
        """Return what is to be stored of definitions that are registered, and then to be added.

        Raises:
            InvalidDefinitionError: one is malformed, or calls one that is neither among them nor known.
        """
        received = {definition.digest: definition for definition in map(canonical, given)}
        plans = self._plans.copy()
        for digest, definition in received.items():
            try:
                _build(digest, received, plans)
            except (PlanError, KeyError, TypeError, msgspec.DecodeError) as error:
                raise InvalidDefinitionError(workflow=definition.name, problems=[str(error)]) from error
        return Checked(list(received.values()), {digest: plans[digest] for digest in received})

    def build(self, digest: Digest, received: Iterable[StoredDefinition]) -> Plan:
        """Return the plan of one of *received*, which may call the others and all that are known; keep nothing of it.

        Raises:
            InvalidDefinitionError: it is malformed, or calls one that is neither.
        """
        bodies = {definition.digest: definition for definition in received}
        try:
            return _build(digest, bodies, ChainMap({}, self._plans))
        except (PlanError, KeyError, TypeError, msgspec.DecodeError) as error:
            raise InvalidDefinitionError(workflow=bodies[digest].name, problems=[str(error)]) from error

    def add(self, checked: Checked) -> None:
        """Add definitions that are stored by now."""
        self._plans.update(checked.plans)
        self._bodies.update({definition.digest: definition.body for definition in checked.definitions})


def add_plans(stored: Iterable[StoredDefinition], plans: dict[Digest, Plan]) -> dict[Digest, str]:
    """Add the plans of stored definitions, in any order, to those that are there; return why some have none."""
    bodies = {definition.digest: definition for definition in stored}
    problems: dict[Digest, str] = {}
    for digest, definition in bodies.items():
        try:
            _build(digest, bodies, plans)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, only its runs have to wait
            problems[digest] = str(error) or type(error).__name__
            log.warning("version %s of workflow %s cannot be run: %s", digest[:12], definition.name, problems[digest])
    return problems


def _called_by(stored: StoredDefinition) -> set[Digest]:
    """Return the versions that a stored one calls; of one that cannot be read, none."""
    try:
        return {Digest(child) for child in child_digests(stored.body)}
    except Exception:  # noqa: BLE001 - building its plan says what is wrong
        return set()


def _build(
    digest: Digest,
    bodies: Mapping[Digest, StoredDefinition],
    plans: MutableMapping[Digest, Plan],
    above: tuple[Digest, ...] = (),
) -> Plan:
    """Return the plan of a definition, adding it and those of the workflows it calls to *plans*."""
    if digest in plans:
        return plans[digest]
    if digest in above:
        raise PlanError("a workflow calls itself")
    if digest not in bodies:
        raise PlanError(f"it calls the definition {digest[:12]}, which is not registered")
    body = bodies[digest].body
    children = {child: _build(Digest(child), bodies, plans, (*above, digest)) for child in child_digests(body)}
    plan = plans[digest] = build_plan(msgspec.json.decode(body), digest, children)
    return plan


def canonical(definition: Mapping[str, Any]) -> StoredDefinition:
    """Return a received definition under its digest; as ``hopline.Definition`` computes it."""
    name = definition.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidDefinitionError(workflow=None, problems=["it has no name"])
    text = json.dumps(definition, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    body = text.encode()
    return StoredDefinition(digest=Digest(hashlib.sha256(body).hexdigest()), name=name, body=body)
