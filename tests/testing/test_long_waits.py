"""Waits of years: a sleep for a time and until a date, and an event that is waited for, over a death of the engine."""

from datetime import UTC, date, datetime

from hopline import Event, sleep, step, workflow
from hopline.testing import Engine

heard = Event("heard", str)


@step
def note(word: str) -> str:
    return word


@workflow
def lease() -> list[str]:
    return [
        note.after(sleep("3000d"))("after eight years"),
        note.after(sleep(date(2035, 5, 1)))("in May"),
        note(heard.wait(key="k", timeout="3600d")),
    ]


def test_waits_of_years_end_in_their_time_though_the_engine_died_meanwhile(engine: Engine) -> None:
    run = engine.start(lease)
    engine.advance("2999d")
    assert [run.step(name).state for name in ("sleep", "sleep_2", "heard")] == ["waiting"] * 3
    engine.crash(down="12h")
    engine.advance("12h")
    assert run.step("note").state == "succeeded"
    engine.advance(f"{(datetime(2035, 4, 30, 23, tzinfo=UTC) - engine.now).days}d")
    assert run.step("sleep_2").state == "waiting"
    engine.advance("1d")
    assert run.step("note_2").state == "succeeded"
    engine.emit(heard, "well", key="k")
    assert run.result() == ["after eight years", "in May", "well"]
