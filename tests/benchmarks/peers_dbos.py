"""DBOS with the shapes of W1 to W4; run inside its own environment by ``peers.py``.

    python peers_dbos.py FOLDER ROUNDS CHAIN WIDTH RUNS STARTS

Its steps are functions in its own process: nothing goes over HTTP, and nobody is told of a step in another process.
Prints one JSON object, a list of figures for each workload.
"""

import asyncio
import itertools
import json
import statistics
import sys
import time

from dbos import DBOS  # pyright: ignore[reportMissingImports]

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
    return statistics.median(after - before for before, after in itertools.pairwise(begun)) * 1e3


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
        asked = time.time()
        DBOS.start_workflow(chain, 1).get_result()
        waits.append(begun[0] - asked)
    return statistics.median(waits) * 1e3


def main() -> None:
    folder = sys.argv[1]
    rounds, length, width, runs, starts = map(int, sys.argv[2:])
    url = f"sqlite:///{folder}/dbos.sqlite"
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR"})
    DBOS.launch()
    chain(10)
    found = {
        "W1": [hop(length) for _ in range(rounds)],
        "W2": [fan_rate(width) for _ in range(rounds)],
        "W3": [many_rate(runs) for _ in range(rounds)],
        "W4": [start_wait(starts) for _ in range(rounds)],
    }
    DBOS.destroy()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
