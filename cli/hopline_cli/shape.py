"""The shape of a workflow, read from its definition: which step follows which, and four ways to write it down.

Pure: definition JSON in, text out. Nothing is checked here; the compiler has done that.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from hopline_cli.text import printable

Definition = Mapping[str, Any]

_NO_EXPRESSIONS: Final = frozenset({"id", "kind", "step", "signature", "result", "policy", "workflow", "after"})
"""Members of a step that refer to no other; schemas have references of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One step, as a place in the graph."""

    id: str
    kind: str
    upstream: tuple[str, ...]
    level: int
    """0 for a step that waits for nothing."""
    mapped: bool
    settled: bool
    """Whether its elements may fail without failing it."""
    calls: str | None
    """Name of the workflow that the step runs."""
    closes: str | None = None
    """``finally`` or ``on_failure`` of a step that runs when the others have ended."""


def nodes(definition: Definition) -> list[Node]:
    """Return the steps in topological order: by level, then by id."""
    raw = {str(node["id"]): node for node in definition["nodes"]}
    upstream = {name: sorted(_references(node) & raw.keys()) for name, node in raw.items()}
    levels: dict[str, int] = {}
    remaining = dict(upstream)
    while remaining:
        level = {name for name, above in remaining.items() if all(other in levels for other in above)}
        if not level:
            break  # a cycle; the compiler refuses those, so such a definition was not ours
        for name in level:
            levels[name] = 1 + max((levels[other] for other in remaining.pop(name)), default=-1)
    return [_node(raw[name], tuple(upstream[name]), level) for name, level in sorted(levels.items(), key=_by_level)]


def _by_level(item: tuple[str, int]) -> tuple[int, str]:
    return item[1], item[0]


def _node(raw: Definition, upstream: tuple[str, ...], level: int) -> Node:
    called = raw.get("workflow")
    return Node(
        id=raw["id"],
        kind=raw["kind"],
        upstream=upstream,
        level=level,
        mapped=raw.get("over") is not None,
        settled=raw.get("settled", False),
        calls=called["name"] if called else None,
        closes=raw.get("closes"),
    )


def _references(node: Definition) -> set[str]:
    """Return all that a step names: in its arguments, its conditions, and what it chooses among."""
    expressions = [value for member, value in node.items() if member not in _NO_EXPRESSIONS]
    raced = [step for arm in node.get("arms", []) for step in arm.get("steps", [])]
    return {*node.get("after", []), *raced, *_referred(expressions)}


def _referred(expression: Any) -> Iterator[str]:
    if isinstance(expression, list):
        for part in expression:
            yield from _referred(part)
    elif isinstance(expression, dict) and "$literal" not in expression:
        if "$ref" in expression:
            yield expression["$ref"]
        else:
            for part in expression.values():
                yield from _referred(part)


def callees(definition: Definition) -> set[str]:
    """Return the names of the workflows that a workflow runs as steps."""
    return {node["workflow"]["name"] for node in definition["nodes"] if node.get("workflow")}


def as_json(definition: Definition) -> dict[str, Any]:
    """Return the graph as data: nodes with their level, and edges."""
    every = nodes(definition)
    return {
        "name": definition["name"],
        "nodes": [
            {"id": node.id, "kind": node.kind, "level": node.level, "mapped": node.mapped, "workflow": node.calls}
            for node in every
        ],
        "edges": [[above, node.id] for node in every for above in node.upstream],
    }


def as_text(definition: Definition) -> str:
    """Return the graph as a tree of arrows; each step stands once, below the last of the steps it waits for."""
    every = nodes(definition)
    levels = {node.id: node.level for node in every}
    below: dict[str | None, list[Node]] = {}
    for node in every:
        parent = max(node.upstream, key=lambda name: levels[name], default=None)
        below.setdefault(parent, []).append(node)
    lines = [printable(definition["name"])]
    for root in below.get(None, []):
        lines.append(f"  {_label(root)}")
        lines.extend(_branches(root, below, "  "))
    return "\n".join(lines)


def _branches(parent: Node, below: Mapping[str | None, list[Node]], indent: str) -> Iterator[str]:
    children = below.get(parent.id, [])
    for child in children:
        last = child is children[-1]
        others = [name for name in child.upstream if name != parent.id]
        also = f"   ◀─ {', '.join(map(printable, others))}" if others else ""
        yield f"{indent}{'└─▶' if last else '├─▶'} {_label(child)}{also}"
        yield from _branches(child, below, indent + ("    " if last else "│   "))


def _label(node: Node) -> str:
    marks = [f"workflow {node.calls}"] if node.calls else []
    if node.kind not in {"python", "workflow"}:
        marks.insert(0, node.kind)
    if node.closes:
        marks.append("at the end of every run" if node.closes == "finally" else "when the run has failed")
    if node.mapped:
        marks.append("for each, failures kept" if node.settled else "for each")
    return printable(node.id + (f"  [{', '.join(marks)}]" if marks else ""))


def as_mermaid(definition: Definition) -> str:
    """Return the graph as a Mermaid flowchart."""
    every = nodes(definition)
    number = {node.id: f"n{at}" for at, node in enumerate(every)}
    lines = ["flowchart LR"]
    for node in every:
        label = _label(node).replace('"', "#quot;")
        opening, closing = ('[["', '"]]') if node.calls else ('["', '"]')
        lines.append(f"  {number[node.id]}{opening}{label}{closing}")
    lines += [f"  {number[above]} --> {number[node.id]}" for node in every for above in node.upstream]
    return "\n".join(lines)


def as_dot(definition: Definition) -> str:
    """Return the graph in Graphviz's language."""
    every = nodes(definition)
    lines = [f"digraph {_quoted(definition['name'])} {{", "  rankdir=LR;", "  node [shape=box];"]
    lines += [f"  {_quoted(node.id)} [label={_quoted(_label(node))}];" for node in every]
    lines += [f"  {_quoted(above)} -> {_quoted(node.id)};" for node in every for above in node.upstream]
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    return json.dumps(printable(text), ensure_ascii=False)
