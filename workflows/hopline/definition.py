"""Definition: a compiled workflow as data. Its canonical JSON is what is stored; the hash of that is its version.

Only what changes the behaviour of a run enters: the graph, policies, schemas and signatures of steps. Files, lines,
docstrings, comments, dates and the process that compiled do not.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import networkx as nx

FORMAT = 1

Kind = Literal[
    "python",
    "http",
    "workflow",
    "dynamic",
    "loop",
    "branch",
    "recover",
    "first",
    "sleep",
    "event",
    "approval",
    "turn",
]
"""Branch, recover and first are decided by the engine itself and have no task; the last four have one that waits."""
Json = Any
Expr = Any
"""JSON, with objects of one ``$`` key where values of the run go; see ``expressions``."""


# A backslash that is itself escaped does not escape the u.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def canonical(value: Json) -> bytes:
    """Return the one spelling of a JSON value; raises ValueError for what cannot be stored as JSON.

    >>> canonical({"b": 1, "a": [True, "ä"]}).decode()
    '{"a":[true,"ä"],"b":1}'
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    data = text.encode()
    if holds_nul(data):
        raise ValueError("text with a NUL character cannot be stored")
    return data


def holds_nul(data: bytes) -> bool:
    """Return whether a text in the JSON *data* has a NUL character, which JSON can say but databases cannot hold."""
    return b"\\u0000" in data and _NUL.search(data) is not None


def digest_of(value: Json) -> str:
    """Return the SHA-256 of the canonical JSON of *value*, in hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def references(expr: Expr) -> Iterator[str]:
    """Yield the node id, ``$input`` or ``$item`` of every reference in *expr*."""
    if isinstance(expr, Mapping):
        if "$literal" in expr:
            return
        if "$ref" in expr:
            yield expr["$ref"]
            return
        for value in expr.values():
            yield from references(value)
    elif isinstance(expr, list):
        for value in expr:
            yield from references(value)


def request_expressions(request: Mapping[str, Any]) -> list[Expr]:
    """Return the expressions of a request template; names of params and headers are none, whatever they look like."""
    urls = [request["url"], request.get("cancel")]
    return [*urls, *request["params"].values(), *request["headers"].values(), request.get("json")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One call of a step in a workflow."""

    id: str
    kind: Kind
    step: str
    signature: str
    inputs: Mapping[str, Expr]
    request: Mapping[str, Any] | None = None
    workflow: Mapping[str, str] | None = None
    over: str | None = None
    """The parameter that takes one element of ``inputs[over]`` each, when the step is mapped."""
    settled: bool = False
    """Whether the mapped step gives a list of ``Ok`` and ``Err``: elements that fail do not fail it."""
    after: tuple[str, ...] = ()
    result: Json
    """JSON schema of one result; a mapped node gives a list of them."""
    policy: Mapping[str, Any]
    guards: list[Json] = field(default_factory=list)
    """Conditions (``if``) and what each must be (``is``) for the node to run; it is skipped otherwise."""
    arms: tuple[Mapping[str, Any], ...] = ()
    """Of a choice: the ``value`` of each arm, with its ``guards`` (branch) or the ``steps`` inside (recover, first)."""
    on: tuple[Json, ...] = ()
    """The failures that ``recover`` is for; all of them if there is none."""
    undo: Mapping[str, Any] | None = None
    """The step that undoes this one: a node's parts, with the result of this one as ``$item``."""

    loop: Mapping[str, Any] | None = None
    """How it is repeated; ``kind`` in it is what a lap is."""
    closes: Literal["on_failure", "finally"] | None = None
    """Whether it runs when everything else has ended: only after a failure, or always."""

    @property
    def unit_kind(self) -> str:
        """What one execution of it is: of a loop, what a lap is."""
        return self.kind if self.loop is None else str(self.loop["kind"])

    def uses(self) -> set[str]:
        """Return the ids of the nodes whose results, or whose ends, this one was given."""
        expressions = [*self.inputs.values(), *(request_expressions(self.request) if self.request else ())]
        expressions += [self.policy["key"]] if "key" in self.policy else []
        expressions += [guard["if"] for guard in self.guards]
        expressions += [[arm["value"], [guard["if"] for guard in arm.get("guards", ())]] for arm in self.arms]
        expressions += [self.loop["until"]] if self.loop is not None else []
        return {*self.after, *(name for name in references(expressions) if not name.startswith("$"))}

    def upstream(self) -> list[str]:
        """Return the ids of the nodes that must have ended before this one, sorted."""
        return sorted(self.uses().union(*(arm.get("steps", ()) for arm in self.arms)))

    def to_json(self) -> dict[str, Any]:
        """Return the node as it stands in a definition. What few nodes have is left out of the others."""
        return {
            "id": self.id,
            "kind": self.kind,
            "step": self.step,
            "signature": self.signature,
            "inputs": dict(self.inputs),
            "request": None if self.request is None else dict(self.request),
            "workflow": None if self.workflow is None else dict(self.workflow),
            "over": self.over,
            "after": list(self.after),
            "result": self.result,
            "policy": dict(self.policy),
            **({"settled": True} if self.settled else {}),
            **({"loop": dict(self.loop)} if self.loop is not None else {}),
            **({"guards": self.guards} if self.guards else {}),
            **({"arms": [dict(arm) for arm in self.arms]} if self.arms else {}),
            **({"on": list(self.on)} if self.on else {}),
            **({"undo": dict(self.undo)} if self.undo else {}),
            **({"closes": self.closes} if self.closes is not None else {}),
        }


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A compiled workflow. Not slotted, because digest and graph are computed once, on use."""

    name: str
    parameters: Json
    nodes: Mapping[str, Node]
    result: Expr
    result_schema: Json
    queues: tuple[Mapping[str, Any], ...] = ()
    schedule: Mapping[str, Any] | None = None
    """When it runs by itself; see ``schedules``."""
    on: Mapping[str, Any] | None = None
    """The event that starts runs of it, the parameter that takes what it says, and the expression of the key."""
    compensate: bool = False
    """Whether what steps did is undone when a run does not succeed."""
    deadline: float | None = None
    """Seconds after which a run fails that is still at work."""
    children: "Mapping[str, Definition]" = field(default_factory=dict, compare=False, repr=False)
    """The definitions of all workflows that this one starts, and that those start, by digest."""

    def to_json(self) -> dict[str, Any]:
        """Return the definition as it is stored."""
        return {
            "format": FORMAT,
            "name": self.name,
            "parameters": self.parameters,
            "nodes": [self.nodes[node_id].to_json() for node_id in sorted(self.nodes)],
            "result": self.result,
            "result_schema": self.result_schema,
            "queues": [dict(queue) for queue in self.queues],
            **({} if self.schedule is None else {"schedule": dict(self.schedule)}),
            **({} if self.on is None else {"on": dict(self.on)}),
            **({"compensate": True} if self.compensate else {}),
            **({} if self.deadline is None else {"deadline": self.deadline}),
        }

    def canonical(self) -> bytes:
        """Return the canonical JSON that the digest is taken of."""
        return canonical(self.to_json())

    @cached_property
    def digest(self) -> str:
        """The version of the workflow: SHA-256 of its canonical JSON, in hex."""
        return digest_of(self.to_json())

    @cached_property
    def graph(self) -> "nx.DiGraph[str]":
        """The nodes, with an edge from each to those that wait for it."""
        from hopline.graph import graph_of  # which imports this module

        return graph_of(self.nodes)
