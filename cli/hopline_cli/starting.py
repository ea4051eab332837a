"""What ``hopline run`` begins: which workflow of which file is meant, and with which input."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from hopline_cli import screen
from hopline_cli.answers import Run
from hopline_cli.client import Api, quoted
from hopline_cli.errors import CliError, ExitCode, UsageError
from hopline_cli.inputs import Assignment, bind, parameter_list
from hopline_cli.running import Order, Start, carry_out
from hopline_cli.server import Place, comes_up
from hopline_cli.shape import callees
from hopline_cli.text import did_you_mean, listing

COMING_SECONDS = 10.0
"""How long a server may take to come up that was started together with a command that needs it."""
RUNS_VERBS = ("list", "show", "watch", "logs", "output", "cancel", "retry", "why")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user asked to run."""

    target: str
    workflow: str | None
    inputs: Sequence[Assignment]
    key: str | None
    priority: int = 0


def split_target(target: str) -> tuple[str | None, str | None]:
    """Return the file and the workflow that ``FILE[:WORKFLOW]`` names; a lone workflow has no file.

    Raises:
        UsageError: it names a file that is not there.
    """
    if Path(target).exists():
        return target, None
    file, colon, workflow = target.rpartition(":")
    if colon and Path(file).exists():
        return file, workflow
    missing = Path(file if colon else target)
    if colon or missing.suffix == ".py" or len(missing.parts) > 1:
        near = did_you_mean(missing.name, [path.name for path in missing.parent.glob("*.py")])
        raise UsageError(f"there is no file {missing}", code="file-not-found", hint=near)
    return None, target


async def run(order: Order, wish: Wish) -> int:
    """Start a run, follow it to its end, tell its outcome, and return the exit code.

    Raises:
        UsageError: a workflow of a server is meant, and none is up; the store is not opened for that, in whose way it
            would be.
    """
    if order.file is None and not await comes_up(order.server, 0.0):
        if wish.target in RUNS_VERBS:
            raise _no_file(wish.target)
        near = _near(wish.target)
        screen.say("no server is up yet; waiting for one" + (f" ({near})" if near else ""))
        if not await comes_up(order.server, COMING_SECONDS):
            raise _no_file(wish.target)
    return await carry_out(order, starter(order, wish))


def starter(order: Order, wish: Wish) -> Start:
    """Return what begins the run once a server and a worker are there."""

    async def start(place: Place, workflows: list[str]) -> Run:
        if place.own and order.file is None:
            raise _no_file(wish.target)
        if place.own and not order.wait:
            raise UsageError("--detach needs a server that goes on with the run", hint=f"start one: {_dev(order)}")
        name = await _chosen(place.api, sorted(workflows), wish.workflow) if order.file else wish.target
        return await _start(place.api, name, wish)

    return start


def _dev(order: Order) -> str:
    return f"hopline dev {quote(order.file or '')}"


def _near(target: str) -> str | None:
    """Return which file was probably meant."""
    return did_you_mean(target, [path.name for path in Path().glob("*.py")])


def _no_file(target: str) -> UsageError:
    if target in RUNS_VERBS:
        hint = f"did you mean: hopline runs {target}"
    else:
        hint = _near(target) or "give the file of the workflow"
    return UsageError(
        f"there is no file {target}, and no server is up that could know a workflow of that name",
        code="file-not-found",
        hint=hint,
    )


async def _chosen(api: Api, names: Sequence[str], wanted: str | None) -> str:
    called: set[str] = set()
    if wanted is None and len(names) > 1:
        for name in names:
            called |= callees((await api.get(f"/workflows/{quoted(name)}"))["definition"])
    return meant(names, called, wanted)


def meant(names: Sequence[str], called: Collection[str], wanted: str | None) -> str:
    """Return the workflow of a file that is meant: the named one, or the only one that is not *called* by others.

    Raises:
        CliError: there is none of that name, or no single one that could be meant.
    """
    if wanted is not None:
        if wanted in names:
            return wanted
        raise CliError(
            "workflow-not-found",
            f"the file has no workflow {wanted}",
            hint=did_you_mean(wanted, names) or f"it has: {listing(names, 10)}",
            exit_code=ExitCode.NOT_FOUND,
        )
    if not names:
        raise UsageError("the file has no workflow", code="no-workflow", hint="decorate a function with @workflow")
    roots = [name for name in names if name not in called]
    if len(roots) == 1:
        return roots[0]
    raise UsageError(
        f"the file has {len(names)} workflows: {listing(names, 10)}",
        code="which-workflow",
        hint=f"name one, like: FILE:{(roots or names)[0]}",
    )


async def _start(api: Api, name: str, wish: Wish) -> Run:
    parameters = (await api.get(f"/workflows/{quoted(name)}"))["parameters"]
    given = bind(wish.inputs, parameters)
    try:
        run, new = await api.start(name, given, wish.key, wish.priority)
    except CliError as error:
        if error.exit_code == ExitCode.USAGE:
            error.hints = [parameter_list(parameters)]  # which says more than the server's
        raise
    if not new:
        screen.say(f"key {wish.key} has a run already: {run['id']}")
    return run
