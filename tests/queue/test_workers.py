"""Workers come, serve, fall silent and leave; slots are counted exactly."""

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hopline_engine.core.plan import Route
from hopline_engine.queue.workers import Worker, Workers, routes_of

S, T = Route("s", "1"), Route("t", "1")


def worker(name: str, *routes: Route, concurrency: int = 4, seen_at: float = 0.0) -> Worker:
    return Worker(
        id=name,
        url="http://127.0.0.1:43121",
        token="secret-token",
        concurrency=concurrency,
        routes=frozenset(routes),
        pid=1,
        host="h",
        seen_at=seen_at,
    )


def pool(*workers: Worker) -> Workers:
    made = Workers()
    for one in workers:
        made.add(one)
    return made


def test_workers_are_found_by_what_they_serve() -> None:
    a, b = worker("a", S), worker("b", S, T)
    workers = pool(a, b)
    assert workers.serving(S) == [a, b]
    assert workers.serving(T) == [b]
    assert workers.serving(Route("s", "2")) == []
    assert workers.get("a") is a
    assert workers.get("c") is None
    assert list(workers) == [a, b]


def test_least_busy_worker_is_reserved() -> None:
    small, large = worker("small", S, concurrency=1), worker("large", S, concurrency=3)
    workers = pool(small, large)
    reserved = [workers.reserve(S) for _ in range(5)]
    assert [one.id if one else None for one in reserved] == ["small", "large", "large", "large", None]


def test_route_that_nobody_serves_has_no_slot() -> None:
    assert pool(worker("a", S)).reserve(T) is None


@settings(deadline=None)
@given(st.lists(st.integers(1, 5), max_size=4), st.integers(0, 30))
def test_workers_take_exactly_as_many_steps_as_they_have_slots(sizes: list[int], asked: int) -> None:
    workers = pool(*(worker(str(number), S, concurrency=size) for number, size in enumerate(sizes)))
    reserved = [workers.reserve(S) for _ in range(asked)]
    assert sum(one is not None for one in reserved) == min(asked, sum(sizes))
    assert all(one.in_flight <= one.concurrency for one in workers)


def test_removed_worker_gets_nothing_more() -> None:
    a = worker("a", S)
    workers = pool(a)
    assert workers.remove("a") is a
    assert workers.reserve(S) is None
    assert workers.get("a") is None
    assert workers.remove("a") is None


def test_registering_again_replaces_what_was_known() -> None:
    before, after = worker("a", S), worker("a", T)
    workers = pool(before, after)
    assert workers.serving(S) == []
    assert workers.serving(T) == [after]
    assert list(workers) == [after]


def test_silent_workers_are_those_not_seen_since() -> None:
    quiet, loud = worker("quiet", S, seen_at=10.0), worker("loud", S, seen_at=20.0)
    assert pool(quiet, loud).silent_since(20.0) == [quiet]


def test_unserved_routes_are_those_without_a_worker() -> None:
    assert pool(worker("a", S)).unserved([S, T]) == [T]


@pytest.mark.parametrize("url", ["http://127.0.0.1:43121", "http://127.0.0.1:43121/base"])
def test_address_of_a_step_is_under_that_of_its_worker(url: str) -> None:
    a = worker("a", S)
    a.url = url
    endpoint = a.endpoint_of(S)
    assert endpoint.url == httpx.URL(f"{url}/steps/s")
    assert endpoint.start.count(b"\r\nHopline-Signature: " + S.signature.encode()) == 1
    assert a.endpoint_of(S) is endpoint, "it is made once"


def test_token_is_sent_and_never_shown() -> None:
    a = worker("a", S)
    assert "secret-token" not in repr(a)
    assert a.authorization == b"Bearer secret-token"


def test_routes_are_what_a_worker_announces() -> None:
    assert routes_of([("s", "1"), ("t", "1"), ("s", "1")]) == {S, T}
