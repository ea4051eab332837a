"""The command ``hopline``: the list of commands, and the one place where errors become lines and exit codes.

Imports nothing but typer, so that the help page and ``--version`` are there at once.
"""

import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from types import ModuleType
from typing import Annotated, NoReturn, cast

import typer

from hopline_cli.errors import CliError, ExitCode, UsageError
from hopline_cli.lazy import Entry, lazy_group

VERBS = {
    "run": Entry(module="hopline_cli.commands.run", help="Run a workflow from a file, watch it, print its result."),
    "dev": Entry(
        module="hopline_cli.commands.dev", help="Serve workflow files while you edit them: engine, worker, API."
    ),
    "serve": Entry(module="hopline_cli.commands.serve", help="Run the engine and its API."),
    "worker": Entry(module="hopline_cli.commands.worker", help="Serve the steps of workflow files to an engine."),
    "doctor": Entry(module="hopline_cli.commands.doctor", help="Look for what is wrong, and say what to do about it."),
}
NOUNS = {
    "workflows": Entry(
        module="hopline_cli.commands.workflows", help="List, check and draw workflows.", aliases=("workflow",)
    ),
    "runs": Entry(module="hopline_cli.commands.runs", help="List, show, watch, explain, cancel and retry runs."),
    "queues": Entry(
        module="hopline_cli.commands.queues", help="List, show, create, change and pause queues.", aliases=("queue",)
    ),
    "approvals": Entry(
        module="hopline_cli.commands.approvals", help="List what people are asked, and decide.", aliases=("approval",)
    ),
    "events": Entry(module="hopline_cli.commands.events", help="Emit and list events.", aliases=("event",)),
    "schedules": Entry(
        module="hopline_cli.commands.schedules",
        help="List, make, change and back-fill schedules.",
        aliases=("schedule",),
    ),
    "secrets": Entry(
        module="hopline_cli.commands.secrets",
        help="Keep values that requests need and nobody sees.",
        aliases=("secret",),
    ),
    "nodes": Entry(
        module="hopline_cli.commands.nodes", help="List the servers that share the work.", aliases=("node",)
    ),
    "db": Entry(module="hopline_cli.commands.db", help="Look at the store's database, upgrade it, copy it."),
    "tasks": Entry(
        module="hopline_cli.commands.tasks", help="Create, list, run, lease and delete tasks.", aliases=("task",)
    ),
    "locations": Entry(
        module="hopline_cli.commands.locations", help="List and show locations of queues.", aliases=("location",)
    ),
    "emulator": Entry(module="hopline_cli.commands.emulator", help="Be Cloud Tasks for programs that use it."),
    "help": Entry(module="hopline_cli.commands.topics", help="Pages of help: exit-codes."),
}
_CANNOT_WRITE = {errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
"""What a full disk, a quota or a reader that went away answer; nothing that a change of the program would mend."""
_LONGEST_NAME = 200
"""Of a file in a message; some cannot be used since their names are too long."""
SWITCHES = {"--debug": "HOPLINE_DEBUG", "--no-color": "NO_COLOR"}
"""Accepted anywhere on the line; kept as environment variables, so that worker processes inherit them."""

sys.modules.setdefault("httpx._main", cast("ModuleType", None))
"""httpx imports its own command line where it finds what that needs, and with it pygments and rich: 6 MB and a tenth of
a second of every command and of a server. It does without where the import fails."""

app = typer.Typer(
    cls=lazy_group({"Do": VERBS, "Look and steer": NOUNS}),
    help="Durable workflows as Python DAGs of queued HTTP tasks.",
    epilog="Exit codes: hopline help exit-codes. Reading commands take --json.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"hopline {version('hopline')}")
        except PackageNotFoundError:
            typer.echo("hopline (not installed)")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", "-V", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks [env: HOPLINE_DEBUG].")] = False,  # noqa: ARG001
    no_color: Annotated[bool, typer.Option("--no-color", help="Print no colour [env: NO_COLOR].")] = False,  # noqa: ARG001
) -> None:
    """Print the help page when no command is given."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the code that ``hopline help exit-codes`` explains."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 must not end a command
    words = _take_switches(list(sys.argv[1:] if arguments is None else arguments))
    try:
        answer = app(args=words, prog_name="hopline", standalone_mode=False)
        sys.stdout.flush()  # not left to the interpreter's end, which could only complain about it
    except Exception as error:  # noqa: BLE001 - the edge of the program: everything is told in one line
        sys.exit(_told(_innermost(error)))
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    sys.exit(answer if isinstance(answer, int) else ExitCode.OK)


def _take_switches(words: list[str]) -> list[str]:
    own = words[: words.index("--")] if "--" in words else words
    for switch, variable in SWITCHES.items():
        if switch in own:
            os.environ[variable] = "1"
    return [word for word in own if word not in SWITCHES] + words[len(own) :]


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _told(error: BaseException) -> int:
    """Print an error and return its exit code."""
    from hopline_cli.screen import complain

    if os.environ.get("HOPLINE_DEBUG", "").lower() not in {"", "0", "false"}:
        traceback.print_exception(error)
    known = _as_cli_error(error)
    with suppress(OSError):  # whoever could read it is gone
        if not isinstance(error, BrokenPipeError):
            complain(known)
    if isinstance(error, OSError):
        _discard_output()
    return known.exit_code


def _discard_output() -> None:
    """Let what is left to write go nowhere: the interpreter would try it again when it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _as_cli_error(error: BaseException) -> CliError:
    if isinstance(error, CliError):
        return error
    if isinstance(error, typer.Abort):
        return CliError("interrupted", "nothing was done", exit_code=ExitCode.INTERRUPTED)
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        hint = f"see {context.command_path} --help" if context is not None else None
        return UsageError(error.format_message(), hint=hint)
    if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
        return CliError("cannot-write", f"{error.filename or 'the output'} cannot be written: {error.strerror}")
    if isinstance(error, OSError) and error.filename is not None:
        name = str(error.filename)[:_LONGEST_NAME]
        return UsageError(f"{name!r} cannot be used: {error.strerror}", code="cannot-use")
    if isinstance(error, UnicodeEncodeError):
        return UsageError(
            f"{error.object[error.start : error.end]!r} is no character; what is given must be Unicode text"
        )
    return CliError(
        "internal",
        f"{type(error).__name__}: {error}",
        hint="this is a bug in hopline; the same command with --debug shows where",
    )
