"""The workflows that are measured: steps that do nothing, in the shapes of the workloads."""

import time

from hopline import Request, http, step, workflow


@step
def numbers(count: int) -> list[int]:
    return list(range(count))


@step
def noop(value: int) -> int:
    return value


@step
def total(values: list[int]) -> int:
    return len(values)


@step
def moment() -> float:
    return time.time()


@http
def ping(value: int, url: str) -> Request[float]:
    return http.post(url, json={"value": value})


@workflow
def one(value: int = 0) -> int:
    return noop(value)


@workflow
def chain_10(value: int = 0) -> int:
    for _ in range(10):
        value = noop(value)
    return value


@workflow
def chain_100(value: int = 0) -> int:
    for _ in range(100):
        value = noop(value)
    return value


@workflow
def fan(width: int = 1000) -> int:
    return total(noop.map(numbers(width)))


@workflow
def begun() -> float:
    return moment()


@workflow
def pings(values: list[int], url: str) -> list[float]:
    return ping.map(values, url=url)


@workflow
def one_ping(url: str, value: int = 0) -> float:
    return ping(value, url)
