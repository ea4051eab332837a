"""Which method a verb and a path stand for: the table of the published reference, in its way of writing paths.

``{name=projects/*/locations/*}:verb`` sets the field ``name`` of the request to what the braces match.
"""

import re
from typing import Final, NamedTuple

from hopline_engine.core.cloud.errors import CloudTasksError, Code
from hopline_engine.queue_api.shapes import Version

_VARIABLE: Final = re.compile(r"{([a-z_.]+)(?:=([^}]+))?}")
_PLACES: Final = {
    "projects": "project",
    "locations": "location",
    "queues": "queue",
    "tasks": "task",
    "operations": "operation",
}
"""What follows a part of a path, as the OpenAPI document calls it."""
_ALL: Final = frozenset(Version)
_V2BETA2: Final = frozenset({Version.V2BETA2})


class Rule(NamedTuple):
    """A verb and a form of paths, and the method that they stand for."""

    verb: str
    template: str
    method: str
    body: str | None
    """Which field of the request the body is; ``*`` for the request itself, ``None`` for no body."""
    versions: frozenset[Version]
    path: re.Pattern[str]
    fields: tuple[str, ...]
    """Which fields of the request the groups of the path are; dots lead into messages."""

    @property
    def shown(self) -> str:
        """The path as OpenAPI writes it, without the version.

        >>> _rule("GET", "{parent=projects/*/locations/*}/queues", "ListQueues").shown
        'projects/{project}/locations/{location}/queues'
        """
        return _VARIABLE.sub(lambda match: _shown(match[2]) if match[2] else "{task}", self.template)


class Matched(NamedTuple):
    """A method that was asked for."""

    rule: Rule
    version: Version
    bound: dict[str, str]
    """Values of the fields of the request that its path decides."""


def _rule(verb: str, template: str, method: str, body: str | None = None, versions: frozenset[Version] = _ALL) -> Rule:
    fields = tuple(match[1] for match in _VARIABLE.finditer(template))
    return Rule(verb, template, method, body, versions, _pattern(template), fields)


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(_VARIABLE.sub(lambda match: f"({_segments(match[2])})" if match[2] else "([^/:]*)", template))


def _segments(pattern: str) -> str:
    """Return what matches the segments of a variable. Only projects may have a colon in their names."""
    return pattern.replace("projects/*", "projects/[^/]+").replace("*", "[^/:]+")


def _shown(pattern: str) -> str:
    parts = pattern.split("/")
    return "/".join(f"{{{_PLACES[parts[at - 1]]}}}" if part == "*" else part for at, part in enumerate(parts))


_L: Final = "projects/*/locations/*"
_Q: Final = f"{_L}/queues/*"
_T: Final = f"{_Q}/tasks/*"

RULES: Final = (
    _rule("POST", f"{{parent={_Q}}}/tasks", "CreateTask", "*"),
    _rule("GET", f"{{name={_T}}}", "GetTask"),
    _rule("DELETE", f"{{name={_T}}}", "DeleteTask"),
    _rule("GET", f"{{parent={_Q}}}/tasks", "ListTasks"),
    _rule("POST", f"{{name={_T}}}:run", "RunTask", "*"),
    _rule("POST", f"{{parent={_Q}}}/tasks:batchCreate", "BatchCreateTasks", "*"),
    _rule("POST", f"{{parent={_Q}}}/tasks:batchDelete", "BatchDeleteTasks", "*"),
    _rule("POST", f"{{queue={_Q}}}/tasks:buffer", "BufferTask", "body"),
    _rule("POST", f"{{queue={_Q}}}/tasks/{{task_id}}:buffer", "BufferTask", "body"),
    _rule("POST", f"{{parent={_Q}}}/tasks:lease", "LeaseTasks", "*", _V2BETA2),
    _rule("POST", f"{{name={_T}}}:acknowledge", "AcknowledgeTask", "*", _V2BETA2),
    _rule("POST", f"{{name={_T}}}:renewLease", "RenewLease", "*", _V2BETA2),
    _rule("POST", f"{{name={_T}}}:cancelLease", "CancelLease", "*", _V2BETA2),
    _rule("GET", f"{{parent={_L}}}/queues", "ListQueues"),
    _rule("POST", f"{{parent={_L}}}/queues", "CreateQueue", "queue"),
    _rule("GET", f"{{name={_Q}}}", "GetQueue"),
    _rule("PATCH", f"{{queue.name={_Q}}}", "UpdateQueue", "queue"),
    _rule("DELETE", f"{{name={_Q}}}", "DeleteQueue"),
    _rule("POST", f"{{name={_Q}}}:purge", "PurgeQueue", "*"),
    _rule("POST", f"{{name={_Q}}}:pause", "PauseQueue", "*"),
    _rule("POST", f"{{name={_Q}}}:resume", "ResumeQueue", "*"),
    _rule("POST", f"{{resource={_Q}}}:getIamPolicy", "GetIamPolicy", "*"),
    _rule("POST", f"{{resource={_Q}}}:setIamPolicy", "SetIamPolicy", "*"),
    _rule("POST", f"{{resource={_Q}}}:testIamPermissions", "TestIamPermissions", "*"),
    _rule("GET", f"{{name={_L}/cmekConfig}}", "GetCmekConfig"),
    _rule("PATCH", f"{{cmek_config.name={_L}/cmekConfig}}", "UpdateCmekConfig", "cmek_config"),
    _rule("GET", f"{{name={_L}/operations/*}}", "GetOperation"),
    _rule("GET", "{name=projects/*}/locations", "ListLocations"),
    _rule("GET", f"{{name={_L}}}", "GetLocation"),
    _rule("GET", f"{{parent={_Q}}}/deadTasks", "ListDeadTasks"),
    _rule("POST", f"{{name={_Q}}}/deadTasks/{{task}}:run", "RunDeadTask", "*"),
    _rule("DELETE", f"{{name={_Q}}}/deadTasks/{{task}}", "DeleteDeadTask"),
    _rule("GET", f"{{parent={_T}}}/attempts", "ListAttempts"),
)
"""All methods; those that are called most come first."""


def match(verb: str, path: str) -> Matched:
    """Return what is asked for. Paths begin with a version, or with ``projects`` for v2: Firebase's tools do so.

    Raises:
        CloudTasksError: nothing is served there, or not with this verb.
    """
    first, _, rest = path.removeprefix("/").partition("/")
    version, name = (Version.V2, f"{first}/{rest}") if first == "projects" else (_version(first), rest)
    others: set[str] = set()
    for rule in RULES:
        found = rule.path.fullmatch(name) if version in rule.versions else None
        if found is None:
            continue
        if rule.verb == verb:
            return Matched(rule, version, _bound(rule, found))
        others.add(rule.verb)
    if others:
        raise CloudTasksError(Code.UNIMPLEMENTED, f"Method {verb} is not allowed here; {', '.join(sorted(others))} is.")
    raise CloudTasksError(Code.NOT_FOUND, "Requested entity was not found.")


def _version(name: str) -> Version:
    try:
        return Version(name)
    except ValueError:
        raise CloudTasksError(Code.NOT_FOUND, "Requested entity was not found.") from None


def _bound(rule: Rule, found: re.Match[str]) -> dict[str, str]:
    bound = dict(zip(rule.fields, found.groups(), strict=True))
    task = bound.pop("task", None)  # of a dead one, whose path is not that of a task
    if task is not None:
        bound["name"] = f"{bound['name']}/tasks/{task}"
    return bound
