"""Small workflows whose steps do what a test lets them do; a folder, the *gate*, is how test and steps talk.

A worker loads this file by itself, so it imports nothing of the tests.
"""

import os
import signal
import time
from pathlib import Path

from hopline import Queue, Request, Retry, context, http, step, workflow

EXECUTIONS = "executions"
"""The file in a gate to which every execution appends the number of its attempt."""
OPEN = "open"
"""The file in a gate whose presence lets executions end."""
LONGEST_SECONDS = 300.0
"""An execution that nobody lets go ends by itself, so that no process is left behind."""

slow = Queue("slow", rate="4/s", burst=1)
steadily = Retry(30, first="100ms", factor=1, jitter="none")


def execute(gate: str) -> int:
    """Note that an attempt is executed, wait until the gate is open, and return the number of the attempt."""
    attempt = context().attempt
    file = os.open(Path(gate) / EXECUTIONS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{attempt}\n".encode())
    finally:
        os.close(file)
    end = time.monotonic() + LONGEST_SECONDS
    while not (Path(gate) / OPEN).exists() and time.monotonic() < end:
        time.sleep(0.01)
    return attempt


@step
def gated(gate: str) -> int:
    """End when the gate is open; no retry policy."""
    return execute(gate)


@step(retry=Retry(1))
def gated_once(gate: str) -> int:
    """End when the gate is open; one attempt that counts."""
    return execute(gate)


@step(timeout="3s", retry=steadily)
def gated_for_a_while(gate: str) -> int:
    """End when the gate is open; an attempt has three seconds."""
    return execute(gate)


@step
def poison(gate: str) -> int:
    """Kill whoever executes it."""
    (Path(gate) / OPEN).touch()
    execute(gate)
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@step
def following(before: int, gate: str) -> int:
    """Come after another step, and be noted too."""
    return before + 10 * execute(gate)


@http
def called(target: str) -> Request[int]:
    """Call the target; no retry policy."""
    return http.post(target, json="x")


@http(queue=slow)
def called_slowly(x: int, target: str) -> Request[int]:
    """Call the target, at most so often."""
    return http.post(target, json=x)


@http(retry=Retry(3, first="1s", jitter="none"))
def called_again(target: str) -> Request[int]:
    """Call the target up to three times."""
    return http.post(target, json="x")


@workflow
def one(gate: str) -> int:
    """A gated step."""
    return gated(gate)


@workflow
def once(gate: str) -> int:
    """A gated step whose policy allows one attempt."""
    return gated_once(gate)


@workflow
def impatient(gate: str) -> int:
    """A gated step that times out after three seconds."""
    return gated_for_a_while(gate)


@workflow
def two(gate: str, next_gate: str) -> int:
    """A gated step and one after it."""
    return following(gated(gate), next_gate)


@workflow
def poisoned(gate: str) -> int:
    """A step that kills its worker."""
    return poison(gate)


@workflow
def call(target: str) -> int:
    """An HTTP step."""
    return called(target)


@workflow
def call_again(target: str) -> int:
    """An HTTP step that is retried."""
    return called_again(target)


@workflow
def call_slowly(target: str) -> list[int]:
    """HTTP steps in a queue with a rate."""
    return called_slowly.map([0, 1, 2, 3, 4, 5, 6, 7], target)


@workflow
def call_after(gate: str, target: str) -> int:
    """A gated step, then an HTTP step."""
    return called.after(gated(gate))(target)


@workflow
def everything(gate: str, next_gate: str, target: str) -> list[int]:
    """All at once: a step that runs, one that has not begun, one that waits for a callback or for its next attempt."""
    return collected(gated(gate), following(gated(gate), next_gate), called(target), called_again(f"{target}/busy"))


@step
def collected(a: int, b: int, c: int, d: int) -> list[int]:
    """Join."""
    return [a, b, c, d]
