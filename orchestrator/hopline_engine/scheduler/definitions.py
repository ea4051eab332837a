"""The workflows that the engine knows: plans by version, and which version of a name is the newest."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from hopline_engine.core.model import Digest
from hopline_engine.core.plan import Plan, PlanError, build_plan, child_digests
from hopline_engine.errors import InvalidDefinitionError, WorkflowNotFoundError, closest
from hopline_engine.store.definitions import StoredDefinition


class Catalogue:
    """Plans in memory; every definition they come from is stored."""

    def __init__(self) -> None:
        self._plans: dict[Digest, Plan] = {}
        self._bodies: dict[Digest, bytes] = {}
        self._current: dict[str, Digest] = {}

    def current(self, name: str) -> Plan:
        """Return the newest version of a workflow.

        Raises:
            WorkflowNotFoundError
        """
        digest = self._current.get(name)
        if digest is None:
            raise WorkflowNotFoundError(workflow=name, did_you_mean=closest(name, self._current))
        return self._plans[digest]

    def all_current(self) -> list[Plan]:
        """Return the newest version of every workflow, by name."""
        return [self._plans[self._current[name]] for name in sorted(self._current)]

    def plan(self, digest: Digest) -> Plan:
        """Return a version that was loaded."""
        return self._plans[digest]

    def body(self, digest: Digest) -> dict[str, Any]:
        """Return a definition as decoded JSON."""
        return msgspec.json.decode(self._bodies[digest], type=dict[str, Any])

    def load(self, stored: Iterable[StoredDefinition]) -> None:
        """Add stored definitions, in any order."""
        bodies = {definition.digest: definition for definition in stored}
        for digest in bodies:
            self._load(digest, bodies)

    def set_current(self, current: Mapping[str, Digest]) -> None:
        """Make versions the newest of their names."""
        self._current.update(current)

    def has(self, digest: Digest) -> bool:
        """Return whether a version is loaded."""
        return digest in self._plans

    def check(self, definitions: Iterable[Mapping[str, Any]]) -> list[StoredDefinition]:
        """Build the plans of definitions that are registered, and return them as they are to be stored.

        Raises:
            InvalidDefinitionError: one is malformed, or calls one that is neither among them nor known.
        """
        received = {definition.digest: definition for definition in map(_canonical, definitions)}
        for digest, definition in received.items():
            try:
                self._load(digest, received)
            except (PlanError, KeyError, TypeError, msgspec.DecodeError) as error:
                raise InvalidDefinitionError(workflow=definition.name, problems=[str(error)]) from error
        return list(received.values())

    def _load(self, digest: Digest, bodies: Mapping[Digest, StoredDefinition], above: tuple[Digest, ...] = ()) -> Plan:
        if digest in self._plans:
            return self._plans[digest]
        if digest in above:
            raise PlanError("a workflow calls itself")
        if digest not in bodies:
            raise PlanError(f"it calls the definition {digest[:12]}, which is not registered")
        definition = bodies[digest]
        children = {
            child: self._load(Digest(child), bodies, (*above, digest)) for child in child_digests(definition.body)
        }
        plan = build_plan(msgspec.json.decode(definition.body), digest, children)
        self._plans[digest] = plan
        self._bodies[digest] = definition.body
        return plan


def _canonical(definition: Mapping[str, Any]) -> StoredDefinition:
    """Return a received definition under its digest; as ``hopline.Definition`` computes it."""
    name = definition.get("name")
    if not isinstance(name, str) or not name:
        raise InvalidDefinitionError(workflow=None, problems=["it has no name"])
    text = json.dumps(definition, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    body = text.encode()
    return StoredDefinition(digest=Digest(hashlib.sha256(body).hexdigest()), name=name, body=body)
