"""Celery on Redis with the shapes of W1 to W4; see ``peers_shapes.py`` for how it is run.

Late acknowledgement, so that a task whose worker dies is done again; Redis keeps everything in memory, so nothing here
is durable. ``PEER_TOOL`` is the Redis server. The worker is a process of its own with as many children as cores.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from celery import Celery, chain, chord
from peers_shapes import Shapes, asked, free_port, median_hop_ms, tell

PORT = int(os.environ.get("PEER_PORT") or free_port())
ADDRESS = f"redis://127.0.0.1:{PORT}/0"
WAIT_SECONDS = 300

app = Celery("peers_celery", broker=ADDRESS, backend=ADDRESS)
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=16, broker_connection_retry_on_startup=True)


@app.task
def moment(before: list[float]) -> list[float]:
    return [*before, time.time()]


@app.task
def number(value: int) -> int:
    return value


@app.task
def total(values: list[int]) -> int:
    return len(values)


@contextmanager
def running(shapes: Shapes) -> Iterator[None]:
    """Run Redis and a worker."""
    with open(f"{shapes.folder}/log", "wb") as log:  # noqa: PTH123
        redis = [
            os.environ["PEER_TOOL"],
            "--port",
            str(PORT),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            shapes.folder,
        ]
        worker = [sys.executable, "-m", "celery", "-A", "peers_celery", "worker", "-l", "ERROR", "--without-gossip"]
        environment = {**os.environ, "PEER_PORT": str(PORT), "PYTHONPATH": os.path.dirname(__file__)}  # noqa: PTH120
        processes = [
            subprocess.Popen(redis, stdout=log, stderr=log),
            subprocess.Popen(worker, stdout=log, stderr=log, env=environment, cwd=shapes.folder),
        ]
        try:
            moment.delay([]).get(timeout=60)
            yield
        finally:
            for process in reversed(processes):
                process.terminate()
                process.wait(60)


def chain_of(length: int) -> list[float]:
    return chain(moment.s([]), *[moment.s() for _ in range(length - 1)])().get(timeout=WAIT_SECONDS)


def fan_rate(width: int) -> float:
    began = time.perf_counter()
    number.delay(width).get(timeout=WAIT_SECONDS)
    chord([number.s(value) for value in range(width)])(total.s()).get(timeout=WAIT_SECONDS)
    return (width + 2) / (time.perf_counter() - began)


def many_rate(runs: int) -> float:
    began = time.perf_counter()
    started = [chain(moment.s([]), *[moment.s() for _ in range(9)])() for _ in range(runs)]
    for each in started:
        each.get(timeout=WAIT_SECONDS)
    return runs * 10 / (time.perf_counter() - began)


def start_wait(times: int) -> float:
    waits = []
    for _ in range(times):
        before = time.time()
        waits.append(moment.delay([]).get(timeout=WAIT_SECONDS)[0] - before)
    return statistics.median(waits) * 1e3


def main() -> None:
    shapes = asked()
    with running(shapes):
        tell(
            shapes,
            {
                "W1": lambda: median_hop_ms(chain_of(shapes.length)),
                "W2": lambda: fan_rate(shapes.width),
                "W3": lambda: many_rate(shapes.runs),
                "W4": lambda: start_wait(shapes.starts),
            },
        )


if __name__ == "__main__":
    main()
