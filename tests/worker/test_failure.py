"""What is told about a failed attempt."""

import pytest

from hopline import Fail, RetryAfter
from hopline.errors import ArgumentError, ResultError
from hopline_engine.worker.failure import describe, names


class Declined(ValueError):
    """An error of users."""


def test_builtins_are_named_bare_and_others_with_their_module() -> None:
    assert names(Declined) == [f"{__name__}.Declined", "ValueError", "Exception", "BaseException"]


def test_description_has_type_bases_and_message() -> None:
    described = describe(TimeoutError("too slow"))
    assert described["type"] == "TimeoutError"
    assert described["types"] == ["TimeoutError", "OSError", "Exception", "BaseException"]
    assert (described["message"], described["retry_after"], described["final"]) == ("too slow", None, False)


@pytest.mark.parametrize("error", [Fail("no"), ResultError("no"), ArgumentError("no")])
def test_errors_that_no_other_attempt_can_help_are_final(error: Exception) -> None:
    assert describe(error)["final"] is True


def test_retry_after_tells_its_seconds() -> None:
    described = describe(RetryAfter("2m", "busy"))
    assert (described["retry_after"], described["message"], described["final"]) == (120.0, "busy", False)


def test_message_without_text_form_does_not_hide_the_error() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    assert "__str__ raised RuntimeError" in describe(Mute())["message"]


def test_text_that_no_store_can_hold_is_replaced() -> None:
    described = describe(ValueError("a\x00b\udcffc"))
    assert described["message"] == "a\ufffdb?c"
    assert "\x00" not in described["traceback"]


def test_long_message_and_traceback_keep_beginning_and_end() -> None:
    described = describe(ValueError("<" + "x" * 100_000 + ">"))
    assert described["message"].startswith("<xx")
    assert described["message"].endswith("xx>")
    assert len(described["message"]) < 5_000
    assert len(described["traceback"]) < 17_000


def test_causes_are_kept() -> None:
    def shop(shops: dict[str, str]) -> str:
        try:
            return shops["missing"]
        except KeyError as error:
            raise Declined("no such shop") from error

    with pytest.raises(Declined) as caught:
        shop({})
    text = describe(caught.value)["traceback"]
    assert text.index("KeyError: 'missing'") < text.index("direct cause") < text.index("Declined: no such shop")


def test_groups_of_exceptions_are_described() -> None:
    described = describe(ExceptionGroup("several", [ValueError("one"), OSError("two")]))
    assert described["type"] == "ExceptionGroup"
    assert "ValueError: one" in described["traceback"]


def test_error_that_is_its_own_cause_is_described() -> None:
    error = ValueError("ring")
    error.__cause__ = KeyError("other")
    error.__cause__.__cause__ = error
    assert "ValueError: ring" in describe(error)["traceback"]


def test_endless_recursion_is_described() -> None:
    def deeper() -> None:
        deeper()

    with pytest.raises(RecursionError) as caught:
        deeper()
    assert len(describe(caught.value)["traceback"]) < 17_000
