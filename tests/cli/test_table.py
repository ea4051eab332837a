"""Tables drop columns when the screen is narrow, and never a character of an id."""

import pytest
from rich.text import Text

from hopline_cli.table import Column, table

COLUMNS = [
    Column(title="RUN"),
    Column(title="WORKFLOW", importance=5),
    Column(title="STEPS", importance=3, right=True),
    Column(title="FAILURE", importance=2, flowing=True),
]
ROWS = [
    ("r_7h2kq9m3xa", "daily_etl", "5/9", "score  HTTP 503 from the upstream, which is busy"),
    ("r_000000000b", "日本語", "12/12", ""),
]


def shown(width: int | None) -> list[str]:
    return [line.plain for line in table(COLUMNS, ROWS, width)]


def test_in_a_pipe_nothing_is_cut() -> None:
    assert shown(None) == [
        "RUN           WORKFLOW   STEPS  FAILURE",
        "r_7h2kq9m3xa  daily_etl    5/9  score  HTTP 503 from the upstream, which is busy",
        "r_000000000b  日本語     12/12",
    ]


@pytest.mark.parametrize("width", range(10, 100))
def test_ids_are_whole_at_every_width(width: int) -> None:
    lines = shown(width)
    assert lines[1].startswith("r_7h2kq9m3xa")
    assert lines[2].startswith("r_000000000b")


@pytest.mark.parametrize("width", range(12, 100))
def test_lines_fit_as_soon_as_the_id_does(width: int) -> None:
    assert all(line.cell_len <= width for line in table(COLUMNS, ROWS, width))


def test_free_text_is_cut_before_a_column_is_dropped() -> None:
    assert shown(60)[1] == "r_7h2kq9m3xa  daily_etl    5/9  score  HTTP 503 from the up…"


def test_least_important_columns_go_first() -> None:
    assert shown(35)[0].split() == ["RUN", "WORKFLOW", "STEPS"]
    assert shown(25)[0].split() == ["RUN", "WORKFLOW"]
    assert shown(20)[0].split() == ["RUN"]


def test_cells_are_text_and_not_markup() -> None:
    assert table([Column(title="A")], [("[red]x[/red]",)], 40)[1].plain == "[red]x[/red]"
    assert table([Column(title="A")], [(Text("x", "red"),)], 40)[1].plain == "x"
