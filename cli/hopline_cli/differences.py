"""What one version of a workflow has that another has not: steps that came, went or changed, and how.

Pure: two definitions in, differences out. A run keeps the definition that it began with; what matters to runs that are
open is a step whose signature changed, since a worker of the new file does not serve the old one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from rich.text import Text

from hopline_cli.shape import Definition
from hopline_cli.text import json_text, one_line

_ABSENT: Final = object()
_LONGEST: Final = 60
"""Characters of a value that are shown."""
_APART: Final = frozenset({"nodes", "format", "name"})
"""Members of a definition that are not compared as they are."""
_MEANS: Final = {
    "signature": "its name, parameters or result: runs of the old version need a worker that serves the old one",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One value that differs."""

    path: str
    """Names and positions on the way to it, joined by points."""
    before: Any = None
    after: Any = None
    """``None`` also where there is no such value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """All that differs between two versions."""

    added: Sequence[str]
    """Steps of the second that the first has not."""
    removed: Sequence[str]
    changed: Mapping[str, Sequence[Change]]
    """By step."""
    workflow: Sequence[Change]
    """Of what is no step: parameters, result, queues, schedule."""

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.workflow)

    def as_json(self) -> dict[str, Any]:
        """Return them as a JSON value."""
        return asdict(self)


def differences(before: Definition, after: Definition) -> Differences:
    """Return what differs between two definitions."""
    old = {node["id"]: node for node in before["nodes"]}
    new = {node["id"]: node for node in after["nodes"]}
    changed = {name: list(_changes(old[name], new[name])) for name in sorted(old.keys() & new.keys())}
    return Differences(
        added=sorted(new.keys() - old.keys()),
        removed=sorted(old.keys() - new.keys()),
        changed={name: found for name, found in changed.items() if found},
        workflow=list(_changes(_without(before, _APART), _without(after, _APART))),
    )


def _without(definition: Definition, names: frozenset[str]) -> Definition:
    return {name: value for name, value in definition.items() if name not in names}


def _changes(before: Any, after: Any, path: tuple[str, ...] = ()) -> Iterator[Change]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in sorted(before.keys() | after.keys()):
            yield from _changes(before.get(name, _ABSENT), after.get(name, _ABSENT), (*path, str(name)))
    elif before is _ABSENT or after is _ABSENT or before != after:
        yield Change(
            path=".".join(path),
            before=None if before is _ABSENT else before,
            after=None if after is _ABSENT else after,
        )


def as_text(found: Differences) -> list[Text]:
    """Return a line for each step that came, went or changed, and below it how."""
    lines = [Text.assemble(" ", ("+", "green"), f" {one_line(name)}") for name in found.added]
    lines += [Text.assemble(" ", ("-", "red"), f" {one_line(name)}") for name in found.removed]
    for name, changes in found.changed.items():
        lines.append(Text.assemble(" ", ("~", "yellow"), f" {one_line(name)}"))
        lines += [_changed(change) for change in changes]
    if found.workflow:
        lines.append(Text.assemble(" ", ("~", "yellow"), " the workflow itself"))
        lines += [_changed(change) for change in found.workflow]
    return lines


def _changed(change: Change) -> Text:
    if change.path in _MEANS:
        return Text(f"     {change.path}  {_MEANS[change.path]}")
    return Text(f"     {one_line(change.path)}  {_shown(change.before)} → {_shown(change.after)}")


def _shown(value: Any) -> str:
    return "-" if value is None else one_line(json_text(value, indent=None), _LONGEST)
