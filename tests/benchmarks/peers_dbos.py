"""DBOS with the shapes of W1 to W4; see ``peers_shapes.py`` for how it is run.

Its steps are functions in its own process: nothing goes over HTTP, and nobody is told of a step in another process.
"""

import asyncio
import statistics
import time

from dbos import DBOS
from peers_shapes import asked, median_hop_ms, tell

begun: list[float] = []


@DBOS.step()
def noop(value: int) -> int:
    begun.append(time.time())
    return value


@DBOS.step()
async def noop_async(value: int) -> int:
    return value


@DBOS.workflow()
def chain(length: int) -> int:
    value = 0
    for _ in range(length):
        value = noop(value)
    return value


@DBOS.workflow()
async def fan(width: int) -> int:
    await noop_async(width)
    values = await asyncio.gather(*[noop_async(value) for value in range(width)])
    return await noop_async(len(values))


def hop(length: int) -> float:
    begun.clear()
    chain(length)
    return median_hop_ms(begun)


def fan_rate(width: int) -> float:
    began = time.perf_counter()
    asyncio.run(fan(width))
    return (width + 2) / (time.perf_counter() - began)


def many_rate(runs: int) -> float:
    began = time.perf_counter()
    for handle in [DBOS.start_workflow(chain, 10) for _ in range(runs)]:
        handle.get_result()
    return runs * 10 / (time.perf_counter() - began)


def start_wait(times: int) -> float:
    waits = []
    for _ in range(times):
        begun.clear()
        before = time.time()
        DBOS.start_workflow(chain, 1).get_result()
        waits.append(begun[0] - before)
    return statistics.median(waits) * 1e3


def main() -> None:
    shapes = asked()
    url = f"sqlite:///{shapes.folder}/dbos.sqlite"
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR"})
    DBOS.launch()
    chain(10)
    tell(
        shapes,
        {
            "W1": lambda: hop(shapes.length),
            "W2": lambda: fan_rate(shapes.width),
            "W3": lambda: many_rate(shapes.runs),
            "W4": lambda: start_wait(shapes.starts),
        },
    )
    DBOS.destroy()


if __name__ == "__main__":
    main()
