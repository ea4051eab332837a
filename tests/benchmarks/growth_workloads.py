"""The workflows of the growth curves: chains of several lengths, a map, and steps that wait meanwhile."""

from hopline import Request, Retry, Workflow, http, step, workflow


@step
def noop(value: int) -> int:
    return value


@step
def numbers(count: int) -> list[int]:
    return list(range(count))


@step
def total(values: list[int]) -> int:
    return len(values)


@http(retry=Retry(2))
def ask(value: int, url: str) -> Request[None]:
    return http.post(url, json={"value": value})


@workflow
def fan(width: int = 1000) -> int:
    return total(noop.map(numbers(width)))


@workflow
def waits(url: str, value: int = 0) -> None:
    return ask(value, url)


@workflow
def wait(count: int, url: str) -> list[None]:
    return ask.map(numbers(count), url=url)


def chain(length: int) -> "Workflow[[int], int]":
    """Return a workflow of *length* steps in a row."""

    def body(value: int = 0) -> int:
        for _ in range(length):
            value = noop(value)
        return value

    body.__name__ = body.__qualname__ = f"chain_{length}"
    return workflow(body)


chain_10, chain_100, chain_1000, chain_10000 = (chain(length) for length in (10, 100, 1000, 10_000))
