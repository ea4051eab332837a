"""Prefect on SQLite with the shapes of W1 to W4; see ``peers_shapes.py`` for how it is run.

Flows and tasks run in this process, against a server in a process of its own. W3 is measured with a tenth of the runs.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from peers_shapes import asked, free_port, median_hop_ms, tell, wait_until_up

PART_OF_RUNS = 10
AT_ONCE = 20


@contextmanager
def running(folder: str) -> Iterator[None]:
    """Run the server, and point this process to it, which has to be before prefect is imported."""
    port = free_port()
    os.environ.update(
        PREFECT_HOME=folder,
        PREFECT_LOGGING_LEVEL="ERROR",
        PREFECT_LOGGING_TO_API_ENABLED="false",
        PREFECT_SERVER_ANALYTICS_ENABLED="false",
        DO_NOT_TRACK="1",
    )
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with open(f"{folder}/log", "wb") as log:  # noqa: PTH123
        server = subprocess.Popen([*command, "--no-ui"], stdout=log, stderr=log)
        try:
            wait_until_up(f"http://127.0.0.1:{port}/api/health")
            os.environ["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
            yield
        finally:
            server.terminate()
            server.wait(60)


def main() -> None:
    shapes = asked()
    with running(shapes.folder):
        from prefect import flow, task

        @task
        def moment(value: int) -> float:
            return time.time()

        @flow
        def chain(length: int) -> list[float]:
            return [moment(number) for number in range(length)]

        @flow
        def fan(width: int) -> int:
            moment(-1)
            values = moment.map(range(width)).result()
            moment(-2)
            return len(values)

        def fan_rate() -> float:
            began = time.perf_counter()
            fan(shapes.width)
            return (shapes.width + 2) / (time.perf_counter() - began)

        def many_rate() -> float:
            runs = max(1, shapes.runs // PART_OF_RUNS)
            began = time.perf_counter()
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(pool.map(chain, [10] * runs))
            return runs * 10 / (time.perf_counter() - began)

        def start_wait() -> float:
            waits = []
            for _ in range(shapes.starts):
                before = time.time()
                waits.append(chain(1)[0] - before)
            return statistics.median(waits) * 1e3

        chain(2)
        measures = {
            "W1": lambda: median_hop_ms(chain(shapes.length)),
            "W2": fan_rate,
            "W3": many_rate,
            "W4": start_wait,
        }
        tell(shapes, measures)


if __name__ == "__main__":
    main()
