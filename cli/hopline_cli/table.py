"""Aligned columns that give up whole columns when the screen is narrow, never characters of an id."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

GAP = 2
NARROWEST_FLOWING = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column of a table."""

    title: str
    importance: int = 9
    """Columns of low importance go first when the screen is narrow; 9 stays."""
    right: bool = False
    flowing: bool = False
    """Free text that may be cut at its end; at most one column, the last."""


Row = Sequence[str | Text]


def table(columns: Sequence[Column], rows: Sequence[Row], width: int | None) -> list[Text]:
    """Return a header and one line per row; with *width* ``None`` nothing is dropped or cut."""
    cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    kept = list(range(len(columns)))
    sizes = [max([len(column.title), *(row[at].cell_len for row in cells)]) for at, column in enumerate(columns)]
    while width is not None and _needed(columns, sizes, kept) > width:
        least = min(kept, key=lambda at: (columns[at].importance, -at))
        if columns[least].importance >= 9:
            break
        kept.remove(least)
    if width is not None and columns[kept[-1]].flowing:
        others = sum(sizes[at] + GAP for at in kept[:-1])
        sizes[kept[-1]] = min(sizes[kept[-1]], max(width - others, NARROWEST_FLOWING))
    header = [Text(column.title, style="bold") for column in columns]
    return [_line(columns, sizes, kept, row) for row in [header, *cells]]


def _needed(columns: Sequence[Column], sizes: Sequence[int], kept: Sequence[int]) -> int:
    widths = [min(sizes[at], NARROWEST_FLOWING) if columns[at].flowing else sizes[at] for at in kept]
    return sum(widths) + GAP * (len(kept) - 1)


def _line(columns: Sequence[Column], sizes: Sequence[int], kept: Sequence[int], row: Sequence[Text]) -> Text:
    line = Text()
    for at in kept:
        cell = row[at].copy()
        if columns[at].flowing:
            cell.truncate(sizes[at], overflow="ellipsis")
        padding = " " * (sizes[at] - cell.cell_len)
        line.append_text(Text.assemble(padding, cell) if columns[at].right else Text.assemble(cell, padding))
        line.append(" " * GAP)
    line.rstrip()
    return line
