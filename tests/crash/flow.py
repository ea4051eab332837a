"""The workflow that is run while its engine and worker are killed: about 200 step runs of every sort there is.

Every execution of a step appends a line to the side-effect log: one when it starts and one when it ends. A worker
loads this file by itself, so it imports nothing of the tests.
"""

import asyncio
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hopline import Context, Request, Retry, context, http, step, workflow

LOG_VARIABLE = "CRASH_EFFECTS"
"""Names the side-effect log for the steps."""

stubborn = Retry(12, first="20ms", factor=1.5, max="500ms")


def record(log: str, run: str, step_run: str, attempt: int, key: str, phase: str) -> None:
    """Append one line to the side-effect log: in one write, so that a kill leaves all of it or nothing."""
    line = {"run": run, "step": step_run, "attempt": attempt, "key": key, "phase": phase, "at": time.time()}
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)


def chance(key: str, attempt: int, salt: str) -> float:
    """Return a number in ``[0, 1)`` that is the same each time one attempt asks for it."""
    return zlib.crc32(f"{salt} {key} {attempt}".encode()) / 2**32


@contextmanager
def executed(*, failing: float = 0.0) -> Iterator[Callable[[float], float]]:
    """Log an execution of the step, and let some fail; yields how long to take, at most so many seconds."""
    here: Context = context()
    log = os.environ[LOG_VARIABLE]
    name = here.step if here.item is None else f"{here.step}[{here.item}]"
    record(log, here.run_id, name, here.attempt, here.idempotency_key, "start")
    yield lambda most: most * chance(here.idempotency_key, here.attempt, "time")
    if chance(here.idempotency_key, here.attempt, "failing") < failing:
        raise RuntimeError("this attempt was meant to fail")
    record(log, here.run_id, name, here.attempt, here.idempotency_key, "end")


@step
def numbers(n: int) -> list[int]:
    """Return what is mapped over."""
    with executed() as seconds:
        time.sleep(seconds(0.05))
    return list(range(n))


@step(retry=stubborn)
def square(x: int) -> int:
    """First of three maps that follow each other element by element."""
    with executed(failing=0.1) as seconds:
        time.sleep(seconds(0.1))
    return x * x


@step(retry=stubborn, max_parallel=10)
def successor(x: int) -> int:
    """Second of the three."""
    with executed(failing=0.1) as seconds:
        time.sleep(seconds(0.05))
    return x + 1


@http(retry=stubborn, timeout="20s")
def twice(x: int, target: str) -> Request[int]:
    """Third of the three, which calls a target that sometimes answers 503."""
    return http.post(f"{target}/twice", json=x)


@http(retry=stubborn, timeout="20s", deadline="10m")
def approved(x: int, target: str) -> Request[int]:
    """Answered 202, and called back later."""
    return http.post(f"{target}/approved", json=x)


@step(retry=stubborn)
def bump(x: int) -> int:
    """One link of a chain."""
    with executed(failing=0.1) as seconds:
        time.sleep(seconds(0.03))
    return x + 1


@step
async def halves(x: int) -> list[int]:
    """First step of the sub-workflow: async, and without a retry policy."""
    with executed() as seconds:
        await asyncio.sleep(seconds(0.01))
    return [x // 2, x - x // 2]


@step
def total(parts: list[int]) -> int:
    """Join."""
    with executed() as seconds:
        time.sleep(seconds(0.03))
    return sum(parts)


@workflow
def halved_and_joined(x: int, target: str) -> int:
    """A sub-workflow: apart, twice each, and together again."""
    return total(twice.map(halves(x), target))


@step
def summary(pipeline: list[int], approvals: list[int], chain: int, families: list[int]) -> dict[str, int]:
    """Join everything."""
    with executed() as seconds:
        time.sleep(seconds(0.02))
    return {"pipeline": sum(pipeline), "approvals": sum(approvals), "chain": chain, "families": sum(families)}


@workflow
def crash_flow(target: str, n: int = 24) -> dict[str, int]:
    """Three maps in a pipeline, a map that waits for callbacks, a chain, and a map of a sub-workflow; then a join."""
    xs = numbers(n)
    pipeline = twice.map(successor.map(square.map(xs)), target)
    approvals = approved.map(xs, target)
    chain = bump(bump(bump(bump(bump(bump(bump(bump(bump(bump(n))))))))))
    families = halved_and_joined.map(xs, target)
    return summary(pipeline, approvals, chain, families)


@workflow
def small_flow(target: str, n: int = 2) -> dict[str, int]:
    """As ``crash_flow``, with little of everything."""
    xs = numbers(n)
    pipeline = twice.map(successor.map(square.map(xs)), target)
    approvals = approved.map(xs, target)
    families = halved_and_joined.map(xs, target)
    return summary(pipeline, approvals, bump(n), families)


def expected(n: int = 24, links: int = 10) -> dict[str, int]:
    """Return what a run over *n* numbers, with so many *links* in its chain, has to return."""
    return {
        "pipeline": sum(2 * (x * x + 1) for x in range(n)),
        "approvals": sum(-x for x in range(n)),
        "chain": n + links,
        "families": sum(2 * x for x in range(n)),
    }
