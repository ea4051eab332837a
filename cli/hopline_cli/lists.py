"""Lists on stdout, in the four forms that every list command has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hopline_cli import screen
from hopline_cli.table import Column, Row, table
from hopline_cli.text import one_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How a list is wanted."""

    as_json: bool = False
    json_lines: bool = False
    quiet: bool = False


def put_list(
    form: Form, items: Sequence[Mapping[str, Any]], key: str, columns: Sequence[Column], rows: Sequence[Row], empty: str
) -> None:
    """Print *items* in *form*.

    *key* is the field that is their id; *rows* is the table for people, *empty* is told them when there is none.
    """
    if form.as_json:
        screen.put_json(items)
    elif form.json_lines:
        screen.put_json_lines(items)
    elif form.quiet:
        screen.put(*(one_line(str(item[key])) for item in items))
    elif rows:
        screen.put(*table(columns, rows, screen.data().width if screen.is_terminal() else None))
    else:
        screen.say(empty)
