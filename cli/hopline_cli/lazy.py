"""Commands that are imported when they are used, so that ``hopline --help`` costs no more than typer itself."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer
from typer.core import TyperGroup

from hopline_cli.errors import UsageError
from hopline_cli.text import did_you_mean, printable


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A command that is not imported yet; its module has a ``typer.Typer`` called ``app``."""

    module: str
    help: str
    aliases: tuple[str, ...] = ()
    """Other names it answers to; they are not listed."""


class CommandGroup(TyperGroup):
    """A group that answers an unknown command with the nearest known one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that *args* begin with.

        Raises:
            UsageError: there is no such command.
        """
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            near = did_you_mean(name, self.list_commands(ctx))
            raise UsageError(
                f"there is no command {printable(name)!r}", hint=near or f"see the list: {ctx.command_path} --help"
            )
        return super().resolve_command(ctx, args)


def lazy_group(sections: dict[str, dict[str, Entry]]) -> type[CommandGroup]:
    """Return a group class whose help lists *sections* without importing any of their commands."""
    entries = {name: entry for section in sections.values() for name, entry in section.items()}
    by_name = entries | {alias: entry for entry in entries.values() for alias in entry.aliases}

    class LazyGroup(CommandGroup):
        """The root command: knows names and help lines, imports on use."""

        def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
            """Return the names that are listed."""
            return list(entries)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
            """Import a command and return it."""
            entry = by_name.get(cmd_name)
            return typer.main.get_command(importlib.import_module(entry.module).app) if entry else None

        def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
            """Write the sections of the help page."""
            for title, section in sections.items():
                with formatter.section(title):
                    formatter.write_dl([(name, entry.help) for name, entry in section.items()])

    return LazyGroup


def verb_app() -> typer.Typer:
    """Return the app of a module that holds a single command."""
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


def noun_app(help_line: str) -> typer.Typer:
    """Return the app of a module that holds the verbs of one noun; without a verb it prints its help."""
    app = typer.Typer(
        cls=CommandGroup, help=help_line, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )
    app.callback(invoke_without_command=True)(help_without_command())
    return app


def help_without_command() -> Callable[[typer.Context], None]:
    """Return a callback that prints the help page when no command is given."""

    def callback(ctx: typer.Context) -> None:
        if ctx.invoked_subcommand is None:
            typer.echo(ctx.get_help())

    return callback
