"""``is`` on a result cannot be heard by the stand-in, so it is found in the source."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from hopline import Request, http, step, workflow
from tests.authoring import test_map as other_module
from tests.authoring.refused import refused

FLAG = os.environ.get("NO_SUCH_FLAG_OF_HOPLINE")


@step
def maybe(number: int) -> int | None:
    return number or None


@step
def told(number: int | None) -> str:
    return str(number)


@step
def pair(number: int) -> dict[str, int | None]:
    return {"number": number}


def test_parameter_is_not_compared_with_none() -> None:
    @workflow
    def wired(number: int | None = None) -> str:
        if number is None:  # refused
            return told(0)
        return told(number)

    assert "choose with branch(x == None" in (refused(wired, "`is` needs the value of number").hint or "")


def test_match_on_none_is_refused() -> None:
    @workflow
    def wired(number: int | None) -> str:
        match number:  # refused
            case None:
                return told(0)
            case _:
                return told(number)

    refused(wired, "`is` needs the value of number")


def _of_a_call() -> Any:
    @workflow
    def wired() -> str:
        return told(1 if maybe(3) is not None else 2)  # refused

    return wired


def _of_a_name() -> Any:
    @workflow
    def wired() -> str:
        found = maybe.using(timeout="1s")(3)
        again = found
        return told(3 if again is None else again)  # refused

    return wired


def _of_a_path() -> Any:
    @workflow
    def wired() -> str:
        found = pair(3)
        return told(found["number"] if None is not found["number"] else 3)  # refused

    return wired


def _of_an_inner_function() -> Any:
    @workflow
    def wired(number: int) -> str:
        def chosen() -> Any:
            return 3 if number is None else number  # type: ignore[redundant-expr]  # refused

        return told(chosen())

    return wired


@pytest.mark.parametrize("made", [_of_a_call, _of_a_name, _of_a_path, _of_an_inner_function])
def test_result_is_not_compared_by_identity(made: Callable[[], Any]) -> None:
    refused(made(), "`is` needs the value of")


def test_request_does_not_compare_its_argument() -> None:
    @http
    def asked(cursor: str | None = None) -> Request[int]:
        if cursor is None:  # refused
            return http.get("https://x.example")
        return http.get("https://x.example", params={"cursor": cursor})

    @workflow
    def wired(cursor: str | None) -> int:
        return asked(cursor)

    refused(wired, "`is` needs the value of cursor")

    @workflow
    def fixed() -> int:
        return asked()

    assert fixed.compile().nodes["asked"].request["params"] == {}  # type: ignore[index]


def test_identity_of_other_values_is_not_refused() -> None:
    @workflow
    def wired(number: int) -> str:
        known = FLAG
        number = maybe(number) or 3 if FLAG is not None else number
        if known is None and other_module is not None and all(x is not None for x in (1, 2)):  # type: ignore[redundant-expr]
            return told(number)
        return told(None)

    assert list(wired.compile().nodes) == ["told"]
