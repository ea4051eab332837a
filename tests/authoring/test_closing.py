"""``on_failure`` and ``finally_``: what they compile to, what they mean in plain calls, and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest

from hopline import DefinitionError, Failure, Request, http, step, workflow
from hopline.errors import NotStubbedError
from hopline.testing import stub


@step
def work(name: str) -> int:
    return len(name)


@http
def notify(failure: Failure, name: str) -> Request[None]:
    text = f"{failure.step}: {failure.error} {failure.run_url}"
    return http.post("https://chat.example.com/hook", json={"text": text, "name": name})


@step
def close(name: str, force: bool = False) -> None: ...


@step
def bare() -> None: ...


@workflow(on_failure=notify, finally_=close)
def job(name: str) -> int:
    return work(name)


def test_closing_steps_are_nodes_without_edges() -> None:
    made = job.compile()
    assert list(made.graph.edges) == []
    told, last = made.nodes["notify"], made.nodes["close"]
    assert (told.closes, last.closes) == ("on_failure", "finally")
    assert told.request is not None
    assert told.request["json"] == {
        "name": {"$ref": "$input", "path": ["name"]},
        "text": {
            "$text": [
                {"$ref": "$failure", "path": ["step"], "format": ""},
                ": ",
                {"$ref": "$failure", "path": ["error"], "format": ""},
                " ",
                {"$ref": "$failure", "path": ["run_url"], "format": ""},
            ]
        },
    }
    assert told.after == ()
    assert last.inputs == {"name": {"$ref": "$input", "path": ["name"]}, "force": False}
    assert made.digest == job.compile().digest


def test_step_may_close_and_be_called_in_the_body_too() -> None:
    @workflow(finally_=bare)
    def wired() -> None:
        bare()

    nodes = wired.compile().nodes
    assert nodes["bare"].closes is None
    assert nodes["bare_2"].closes == "finally"


def test_workflow_with_another_policy_still_closes() -> None:
    assert job.using(deadline="1h").finally_ is close
    assert job.after().on_failure is notify


# --- plain calls ------------------------------------------------------------------------------------------------------


def raising(error: Exception) -> Callable[..., Any]:
    def answer(**_: Any) -> Any:
        raise error

    return answer


def test_plain_call_that_succeeds_closes_without_telling() -> None:
    with stub(notify, None) as told, stub(close, None) as closed:
        assert job("abc") == 3
    assert told.calls == []
    assert closed.calls == [{"name": "abc", "force": False}]


def test_plain_call_that_fails_tells_and_closes_and_raises_what_failed() -> None:
    with (
        stub(work, calls=raising(ValueError("503 no"))),
        stub(notify, None) as told,
        stub(close, None) as closed,
        pytest.raises(ValueError, match="503 no"),
    ):
        job("abc")
    (call,) = told.calls
    assert call["name"] == "abc"
    assert (call["failure"].step, call["failure"].error, call["failure"].status) == ("work", "503 no", 503)
    assert len(closed.calls) == 1


def test_plain_failure_of_a_closing_step_is_a_warning_and_changes_nothing() -> None:
    with (
        stub(close, calls=raising(OSError("full"))),
        pytest.warns(RuntimeWarning, match=r"close\(\) failed at the end"),
    ):
        assert job("abc") == 3


def test_plain_call_misses_a_stub_of_a_closing_step() -> None:
    with stub(work, calls=raising(ValueError("no"))), pytest.raises(NotStubbedError):
        job("abc")


# --- what is refused --------------------------------------------------------------------------------------------------


@step
def needs_more(why: Failure, color: str) -> None: ...


@step
def wrong_type(why: Failure, name: int) -> None: ...


@step
def no_failure(name: str) -> None: ...


@workflow
def other() -> None: ...


@pytest.mark.parametrize(
    ("closing", "message"),
    [
        ({"on_failure": needs_more}, "takes 'color': the workflow has no such parameter"),
        ({"finally_": needs_more}, "takes 'why': the workflow has no such parameter"),
        ({"on_failure": wrong_type}, "name does not fit its type"),
        ({"on_failure": no_failure}, "name does not fit its type"),
        ({"finally_": other}, "finally_ is <workflow other>"),
        ({"finally_": close.after(1)}, "stands for itself|finally_ is"),
    ],
)
def test_step_that_cannot_close_is_refused(closing: dict[str, Any], message: str) -> None:
    @workflow(**closing)
    def wired(name: str) -> int:
        return work(name)

    with pytest.raises(DefinitionError, match=message) as caught:
        wired.compile()
    assert caught.value.file == __file__
    assert caught.value.hint


def test_what_is_no_step_is_refused_at_once() -> None:
    with pytest.raises(DefinitionError, match="finally_ is <function") as caught:
        workflow(finally_=lambda: None)  # type: ignore[call-overload]
    assert caught.value.hint == "give a step: finally_=notify"
