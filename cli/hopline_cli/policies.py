"""IAM policies of queues, in gcloud's words: kept and answered by the server, enforced by nobody."""

import json
import sys
from pathlib import Path
from typing import Any

from hopline_cli import screen
from hopline_cli.errors import CliError, UsageError
from hopline_cli.places import QueuePlace
from hopline_cli.server import reached
from hopline_cli.text import printable

Json = dict[str, Any]


async def show_policy(place: QueuePlace, server: str | None) -> None:
    """Print the policy of a queue."""
    async with reached(server) as api:
        screen.put_json(await api.cloud("POST", f"/v2/{place.name}:getIamPolicy"))


async def set_policy(place: QueuePlace, file: str, server: str | None) -> None:
    """Replace the policy of a queue by that in a file; if it says an etag, only the one that has that."""
    policy = policy_in(file)
    async with reached(server) as api:
        _tell(await api.cloud("POST", f"/v2/{place.name}:setIamPolicy", {"policy": policy}), place)


async def add_binding(place: QueuePlace, member: str, role: str, server: str | None) -> None:
    """Give a role to a member."""
    async with reached(server) as api:
        policy = await api.cloud("POST", f"/v2/{place.name}:getIamPolicy")
        binding = _binding(policy, role)
        if binding is None:
            binding = {"role": role, "members": []}
            policy.setdefault("bindings", []).append(binding)
        if member not in binding["members"]:
            binding["members"].append(member)
        _tell(await api.cloud("POST", f"/v2/{place.name}:setIamPolicy", {"policy": policy}), place)


async def remove_binding(place: QueuePlace, member: str, role: str, server: str | None) -> None:
    """Take a role from a member.

    Raises:
        CliError: the member does not have it.
    """
    async with reached(server) as api:
        policy = await api.cloud("POST", f"/v2/{place.name}:getIamPolicy")
        binding = _binding(policy, role)
        if binding is None or member not in binding["members"]:
            raise CliError("no-binding", f"{member} does not have {role} of queue {place.shown}")
        binding["members"].remove(member)
        policy["bindings"] = [each for each in policy["bindings"] if each.get("members")]
        _tell(await api.cloud("POST", f"/v2/{place.name}:setIamPolicy", {"policy": policy}), place)


def policy_in(file: str) -> Json:
    """Return the policy in a file (``-`` for stdin).

    Raises:
        UsageError: the file cannot be read, or has no JSON object in it.
    """
    policy = json_in(file)
    if not isinstance(policy, dict):
        raise UsageError(f"{file} holds no policy", hint="write what get-iam-policy prints")
    return policy


def json_in(file: str) -> Any:
    """Return the JSON in a file (``-`` for stdin).

    Raises:
        UsageError: the file cannot be read, or is not JSON.
    """
    try:
        return json.loads(sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{file} is not JSON: {error}") from error


def _binding(policy: Json, role: str) -> Json | None:
    """Return the binding of a role without a condition."""
    bindings: list[Json] = policy.get("bindings", [])
    found = next((each for each in bindings if each.get("role") == role and "condition" not in each), None)
    if found is not None:
        found.setdefault("members", [])
    return found


def _tell(policy: Json, place: QueuePlace) -> None:
    screen.say(printable(f"Updated IAM policy for queue {place.shown}."))
    screen.put_json(policy)
