"""Steps that wait, as workflow files write them."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from hopline import DefinitionError, Pending, Request, defer, http, sensor, sleep, step, workflow
from hopline.errors import NotStubbedError
from hopline.testing import stub


@step
def note(text: str) -> str:
    return text


@step
def due(text: str) -> datetime:
    return datetime(2027, 1, 31, tzinfo=UTC)


@workflow
def later(text: str) -> str:
    first = note(text)
    return note.after(sleep.after(first)("3d"))(text)


def inputs_of(until: Any) -> dict[str, Any]:
    @workflow
    def one() -> str:
        return note.after(sleep(until))("x")

    return dict(one.compile().nodes["sleep"].inputs)


def test_sleep_is_a_step_that_others_wait_for() -> None:
    definition = later.compile()
    node = definition.nodes["sleep"]
    assert (node.kind, dict(node.inputs), node.after, node.result) == (
        "sleep",
        {"seconds": 259_200.0},
        ("note",),
        {"type": "null"},
    )
    assert definition.nodes["note_2"].after == ("sleep",)
    assert list(definition.graph.edges) == [("note", "sleep"), ("sleep", "note_2")]


@pytest.mark.parametrize(
    ("until", "inputs"),
    [
        ("90s", {"seconds": 90.0}),
        ("2027-01-31", {"until": "2027-01-31"}),
        (date(2050, 1, 31), {"until": "2050-01-31"}),
        (datetime(2027, 1, 31, 8, tzinfo=timezone(timedelta(hours=1))), {"until": "2027-01-31T08:00:00+01:00"}),
    ],
)
def test_sleep_takes_durations_dates_and_times(until: Any, inputs: dict[str, Any]) -> None:
    assert inputs_of(until) == inputs


def test_sleep_until_a_result_refers_to_it() -> None:
    @workflow
    def one() -> str:
        return note.after(sleep(due("x")))("x")

    assert one.compile().nodes["sleep"].inputs == {"until": {"$ref": "due", "path": []}}


@pytest.mark.parametrize(
    ("until", "message"),
    [
        ("soon", "no duration of at most ten years and no date"),
        ("20000d", "no duration of at most ten years and no date"),
        (datetime(2027, 1, 31, 8), "a time without its zone"),  # noqa: DTZ001 - that is what is refused
        ("2027-01-31T08:00:00", "a time without its zone"),
        (5, "sleep\\(\\) is given 5"),
    ],
)
def test_sleep_until_what_is_no_time_is_refused_with_its_line(until: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message) as refused:
        inputs_of(until)
    assert str(refused.value.file).endswith("test_waiting.py")
    assert refused.value.hint is not None


def test_sleep_until_a_number_of_a_result_is_refused() -> None:
    @step
    def count() -> int:
        return 1

    @workflow
    def one() -> str:
        until: Any = count()
        return note.after(sleep(until))("x")

    with pytest.raises(DefinitionError, match="it is a number, not text"):
        one.compile()


def test_sleep_that_nothing_waits_for_is_refused() -> None:
    @workflow
    def one() -> str:
        sleep("3d")
        return note("x")

    with pytest.raises(DefinitionError, match="nothing waits for sleep in one") as refused:
        one.compile()
    assert "step.after(sleep(...))" in str(refused.value.hint)


def test_plain_call_does_not_sleep() -> None:
    with stub(note, "done") as noted:
        assert later("x") == "done"
    assert len(noted.calls) == 2


@step(deadline="2h")
def first_frame(url: str) -> Pending[str]:
    return defer()


@step
async def first_sound(url: str) -> Pending[str]:
    return defer()


@workflow
def film(url: str) -> list[str]:
    return [note(first_frame(url)), first_sound(url)]


def test_deferred_step_gives_its_callers_the_result() -> None:
    definition = film.compile()
    assert definition.nodes["first_frame"].result == {"type": "string"}
    with stub(first_frame, "a.png") as farm, stub(first_sound, "a.wav"):
        assert film("a.mov") == ["a.png", "a.wav"]
    assert farm.calls == [{"url": "a.mov"}]


@pytest.mark.parametrize("deferring", [first_frame, first_sound])
def test_deferred_step_has_no_result_in_a_plain_call(deferring: Any) -> None:
    with pytest.raises(NotStubbedError, match="its result comes by callback"):
        deferring("a.mov")


def test_pending_says_of_what() -> None:
    @step
    def bare() -> Pending:  # type: ignore[type-arg]
        return defer()

    @workflow
    def one() -> Any:
        return bare()

    with pytest.raises(DefinitionError, match="Pending does not say what the result will be"):
        one.compile()


def test_callback_is_in_the_definition_only_where_it_is_asked_for() -> None:
    @http(callback=True)
    def pay(amount: float) -> Request[int]:
        return http.post("https://pay.example.com", json=amount)

    @http
    def tell(amount: float) -> Request[int]:
        return http.post("https://pay.example.com", json=amount)

    @workflow
    def one() -> list[int]:
        return [pay(1.0), tell(1.0)]

    nodes = one.compile().nodes
    assert nodes["pay"].policy["callback"] is True
    assert "callback" not in nodes["tell"].policy


@sensor(every="30s", timeout="6h")
def upload_finished(album: str) -> list[str] | None:
    return None if album == "open" else [album]


@workflow
def album_job(album: str) -> list[str]:
    return note.map(upload_finished(album))


def test_sensor_is_a_step_that_gives_what_it_finds() -> None:
    node = album_job.compile().nodes["upload_finished"]
    assert node.result == {"type": "array", "items": {"type": "string"}}
    assert (node.kind, node.policy["every"], node.policy["deadline"]) == ("python", 30.0, 21_600.0)
    assert album_job("a") == ["a"]
    with stub(upload_finished, ["b.jpg"]):
        assert album_job("open") == ["b.jpg"]


def test_sensor_that_finds_nothing_in_a_plain_call_says_so() -> None:
    with pytest.raises(NotStubbedError, match="found nothing yet"):
        album_job("open")


@pytest.mark.parametrize("kind", [str, None])
def test_sensor_that_cannot_say_not_yet_is_refused(kind: Any) -> None:
    def always() -> Any:
        return "x"

    always.__annotations__["return"] = kind
    looking: Any = sensor(every="1s")(always)

    @workflow
    def one() -> Any:
        return looking()

    with pytest.raises(DefinitionError, match="cannot say that there is nothing yet"):
        one.compile()
