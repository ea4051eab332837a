"""The two places of output: data on stdout, talk on stderr.

Colour, width and the choice between a person's form and a program's follow the place itself: a terminal gets
colour and relative times, a pipe gets plain text that is never cut. A server, which says little, does without rich:
that is 3 MB of memory.
"""

import os
import sys
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

from hopline_cli.errors import CliError
from hopline_cli.text import json_text, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text


@cache
def data() -> "Console":
    """Return the console of stdout."""
    return _console(stderr=False)


@cache
def talk() -> "Console":
    """Return the console of stderr."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> "Console":
    from rich.console import Console

    plain = bool(os.environ.get("NO_COLOR"))
    return Console(
        stderr=stderr,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
        color_system=None if plain else "auto",
    )


def is_terminal() -> bool:
    """Return whether stdout is read by a person."""
    return sys.stdout.isatty()


def put(*lines: "str | Text") -> None:
    """Print lines of data; each must be printable already."""
    for line in lines:
        data().print(line)


def put_json(value: Any) -> None:
    """Print a value as indented JSON on stdout."""
    put_plain(json_text(value))


def put_json_lines(values: Iterable[Any]) -> None:
    """Print each value as one line of JSON on stdout."""
    for value in values:
        put_plain(json_text(value, indent=None))


def put_plain(line: str) -> None:
    """Print a line of data without any styling."""
    sys.stdout.write(line + "\n")


def say(line: "str | Text") -> None:
    """Print a line of talk on stderr; it must be printable already."""
    if isinstance(line, str) and not talk.cache_info().currsize:  # nobody draws there, so nothing is drawn over
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    else:
        talk().print(line)


def busy(what: str) -> "Status":
    """Return a sign of life for a terminal; it is gone without a trace when it is stopped."""
    from rich.status import Status
    from rich.text import Text

    return Status(Text(printable(what)), console=talk())


def say_of_worker(line: str) -> None:
    """Pass on a line that a worker printed; it marks its own, users' imports do not."""
    say(line if line.startswith("worker: ") else f"worker: {line}")


def complain(error: CliError) -> None:
    """Print an error in the house's form: what and why on one line, then what to do."""
    from rich.text import Text

    say(Text.assemble((f"error[{error.code}]", "bold red"), (f": {printable(error.message)}", "red")))
    for hint in error.hints:
        say(Text.assemble(("hint: ", "cyan"), printable(hint)))
    for other in error.also:
        complain(other)
