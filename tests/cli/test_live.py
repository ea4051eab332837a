"""The live picture: what it says of a run, at every size."""

import re
from io import StringIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hopline_cli.live import GLYPHS, lines, note, picture
from hopline_cli.text import printable
from hopline_cli.when import unix
from tests.cli.fake_api import T0, a_bar, a_run, a_step, at

NOW = unix(T0) + 4.4

SAMPLE = a_run(
    "r_7h2kq9m3xa",
    "running",
    a_step("extract_orders", attempts=1, started_at=at(0), ended_at=at(0.5), bars=[a_bar(0, 0.5)]),
    a_step(
        "clean_orders",
        attempts=2,
        started_at=at(0.5),
        ended_at=at(2),
        upstream=["extract_orders"],
        bars=[a_bar(0.5, 0.9, "failed"), a_bar(1.3, 2.0, attempt=2)],
    ),
    a_step(
        "score",
        "scheduled",
        attempts=2,
        started_at=at(2.5),
        next_at=at(8.4),
        note="is retrying, attempt 3 of 5 at 02:00:08 UTC (in 5.0 s); HTTP 503",
        bars=[a_bar(2.5, 3.1, "failed"), a_bar(3.6, 4.1, "failed", 2)],
    ),
    a_step(
        "audit",
        "running",
        started_at=at(2.5),
        items={"total": 1000, "succeeded": 612, "failed": 0, "running": 8},
        note="612 of 1000 items",
    ),
    a_step("load", "pending", upstream=["score", "audit", "clean_orders"]),
)


def shown(run: Any, width: int = 100, height: int | None = None, now: float = NOW) -> list[str]:
    return [line.plain for line in lines(run, now, width, height)]


def test_header_says_what_runs_how_long_and_how_far() -> None:
    header = shown(SAMPLE)[0]
    assert header.startswith(" daily_etl  r_7h2kq9m3xa  ● running  4.4 s  2/5 ")
    assert header.count("━") == 24 * 2 // 5
    assert header.count("━") + header.count("─") == 24


def test_each_step_has_a_line_with_its_sign_in_topological_order() -> None:
    assert [line.split()[0:2] for line in shown(SAMPLE)[1:]] == [
        ["✔", "extract_orders"],
        ["✔", "clean_orders"],
        ["↻", "score"],
        ["●", "audit"],
        ["○", "load"],
    ]


def test_notes_say_attempts_next_retry_progress_and_what_is_waited_for() -> None:
    _, extract, clean, score, audit, load = shown(SAMPLE)
    assert extract.endswith("0.5 s")
    assert clean.endswith("1.1 s  2 attempts")
    assert score.endswith("1.1 s  attempt 3 of 5 in 4.0 s; HTTP 503")
    assert audit.endswith("1.9 s  612 of 1,000 items")
    assert load.endswith("waits for score, audit")


def test_countdown_of_a_retry_goes_on_between_events() -> None:
    assert shown(SAMPLE, now=NOW + 2.5)[3].endswith("attempt 3 of 5 in 1.5 s; HTTP 503")


def marks(line: str) -> list[str]:
    return re.findall(r"[▇▒░]+", line)


def test_every_attempt_is_a_mark_of_its_own_on_the_common_axis() -> None:
    _, extract, clean, score, *_ = shown(SAMPLE)
    assert [mark[0] for mark in marks(clean)] == ["▒", "▇"]
    assert [mark[0] for mark in marks(score)] == ["▒", "▒"]
    assert extract.index("▇") < clean.index("▒") < clean.index("▇") < score.index("▒")


def test_failed_attempts_are_red_and_the_good_one_green() -> None:
    line = lines(SAMPLE, NOW, 100)[2]
    styles = {line.plain[span.start]: str(span.style) for span in line.spans if line.plain[span.start] in "▒▇"}
    assert styles == {"▒": "red", "▇": "green"}


def test_attempts_that_are_too_short_for_the_axis_are_still_told_apart() -> None:
    bars = [a_bar(n / 100, n / 100 + 0.001, "failed", n) for n in range(5)]
    run = a_run("r_1", "running", a_step("flaky", "running", attempts=5, bars=bars, started_at=at(0)))
    assert len(marks(shown(run, now=NOW + 50)[1])) == 5


def test_attempts_at_the_end_of_the_axis_are_still_told_apart() -> None:
    bars = [a_bar(4.35 + n / 100, 4.35 + n / 100 + 0.005, "failed", n) for n in range(5)]
    run = a_run("r_1", "failed", a_step("flaky", "failed", attempts=5, bars=bars, started_at=at(0)))
    assert len(marks(shown(run)[1])) == 5


def test_narrow_screen_keeps_names_and_ids_and_loses_the_axis_first() -> None:
    narrow = shown(SAMPLE, width=45)
    assert "r_7h2kq9m3xa" in narrow[0]
    assert not any(marks(line) for line in narrow)
    assert "extract_orders" in narrow[1]


def test_short_screen_shows_what_goes_on_and_counts_the_rest() -> None:
    steps = [a_step(f"s{n:03}", "succeeded" if n < 100 else "pending") for n in range(200)]
    steps[100] = a_step("s100", "running")
    steps[7] = a_step("s007", "failed")
    told = shown(a_run("r_1", "running", *steps), height=12)
    assert len(told) == 12
    assert any(line.startswith(" ● s100") for line in told)
    assert any(line.startswith(" ✖ s007") for line in told)
    assert any("s099" in line for line in told)
    assert any("s101" in line for line in told)
    assert told[-1] == "   … 190 more steps: 95 succeeded, 95 pending"


def test_ended_run_no_longer_gets_older() -> None:
    ended = a_run("r_1", "succeeded", a_step("only", bars=[a_bar(0, 1)], attempts=1, started_at=at(0), ended_at=at(1)))
    assert shown(ended, now=NOW + 1000) == shown(ended, now=NOW)


@pytest.mark.parametrize("state", GLYPHS)
def test_every_state_has_a_sign(state: str) -> None:
    assert shown(a_run("r_1", "running", a_step("x", state)))[1].startswith(f" {GLYPHS[state][0]} x")


def test_state_of_a_newer_server_is_shown_all_the_same() -> None:
    assert shown(a_run("r_1", "paused", a_step("x", "napping")))[1].startswith(" ? x")


@pytest.mark.parametrize(
    "step, said",
    [
        (a_step("x", "failed", error={"message": "bad\nrow \x1b[31m"}), "bad row \\x1b[31m"),
        (a_step("x", "upstream_failed", upstream=["a", "b"]), "a failed"),
        (a_step("x", "waiting"), "waits for its callback"),
        (a_step("x", "queued", note='waits: queue "mail" is paused'), 'queue "mail" is paused'),
        (a_step("x", "queued", note="waits: no worker serves x in the version of this run"), "no worker serves x in"),
        (a_step("x", "running", attempts=2, note="is running for 0.3 s, attempt 2 of 5"), "attempt 2 of 5"),
        (a_step("x", "running", items={"total": None, "succeeded": 3, "failed": 0, "running": 1}), "3 items so far"),
        (
            a_step("x", "failed", items={"total": 9, "succeeded": 3, "failed": 2, "running": 0}),
            "3 of 9 items, 2 failed",
        ),
    ],
)
def test_note_says_why(step: Any, said: str) -> None:
    run = a_run("r_1", "running", a_step("a", "failed"), a_step("b"), step)
    assert said in shown(run, width=140)[3]


def test_mapped_step_says_why_its_items_wait() -> None:
    step = a_step(
        "x",
        "running",
        items={"total": 10, "succeeded": 3, "failed": 0, "running": 0},
        note='3 of 10 items; x[4] waits: queue "erp" sends 10 tasks a second at most',
    )
    assert note(step, {}, NOW) == '3 of 10 items · x[4] waits: queue "erp" sends 10 tasks a second at most'


names = st.text(min_size=1, max_size=60)
times = st.floats(0, 59)
bars = st.lists(
    st.builds(
        lambda begin, length, state: a_bar(begin, min(begin + length, 59.9) if state else None, state or "running"),
        times,
        times,
        st.sampled_from(["succeeded", "failed", "timed_out", "lost", None]),
    ),
    max_size=20,
)
steps = st.builds(
    lambda name, state, bars: a_step(name, state, bars=bars, attempts=len(bars), started_at=at(0) if bars else None),
    names,
    st.sampled_from(sorted(GLYPHS)),
    bars,
)


@given(st.lists(steps, max_size=30), st.integers(20, 200), st.integers(3, 40), st.floats(0, 1e5))
def test_picture_fits_every_screen(chosen: list[Any], width: int, height: int, later: float) -> None:
    told = lines(a_run("r_7h2kq9m3xa", "running", *chosen), NOW + later, width, height)
    assert len(told) <= height
    assert all(line.cell_len <= width for line in told)
    assert all(printable(line.plain) == line.plain and "\n" not in line.plain for line in told)


def test_picture_is_drawn_by_rich_without_wrapping() -> None:
    console = Console(width=60, file=StringIO())
    with console.capture() as captured:
        console.print(picture(SAMPLE, NOW, 60))
    assert len(captured.get().splitlines()) == 6


def test_columns_of_wide_characters_stay_aligned() -> None:
    step: dict[str, Any] = {"attempts": 1, "started_at": at(0), "ended_at": at(4.4), "bars": [a_bar(0, 4.4)]}
    run = a_run("r_1", "succeeded", a_step("日本語", **step), a_step("abcdef", **step))
    wide, narrow = lines(run, NOW, 100)[1:]
    assert wide.cell_len == narrow.cell_len
