"""Restate with the shapes of W1 to W4; see ``peers_shapes.py`` for how it is run.

``PEER_VARIANT``: with ``calls`` each step is a call of another handler over HTTP, with ``closures`` a function that the
workflow's own handler runs. ``PEER_TOOL`` is the server. The service is a process of its own.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import httpx
import hypercorn.asyncio
import hypercorn.config
import restate
from peers_shapes import Shapes, asked, free_port, median_hop_ms, tell, wait_until_up

WAIT_SECONDS = 300

steps = restate.Service("steps")
flows = restate.Service("flows")


@steps.handler()
async def moment(ctx: restate.Context, value: int) -> float:
    return time.time()


def step(ctx: restate.Context, number: int) -> Awaitable[float]:
    if os.environ["PEER_VARIANT"] == "calls":
        return ctx.service_call(moment, arg=number)
    return ctx.run_typed(f"step-{number}", now)


def now() -> float:
    return time.time()


@flows.handler()
async def chain(ctx: restate.Context, length: int) -> list[float]:
    return [await step(ctx, number) for number in range(length)]


@flows.handler()
async def fan(ctx: restate.Context, width: int) -> int:
    await step(ctx, -1)
    values = await restate.gather(*[step(ctx, number) for number in range(width)])
    await step(ctx, -2)
    return len(values)


async def serve(port: int) -> None:
    config = hypercorn.config.Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.h2_max_concurrent_streams = 2_147_483_647
    config.keep_alive_max_requests = 2_147_483_647
    config.keep_alive_timeout = 2_147_483_647
    await hypercorn.asyncio.serve(restate.app([steps, flows]), config)


@contextmanager
def running(shapes: Shapes) -> Iterator[str]:
    """Run server and service; yield the address for requests."""
    ingress, admin, node, service = (free_port() for _ in range(4))
    settings = {
        "RESTATE_BASE_DIR": shapes.folder,
        "RESTATE_NODE_NAME": "bench",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
        "RESTATE_ADVERTISED_ADDRESS": f"http://127.0.0.1:{node}",
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RUST_LOG": "error",
    }
    with open(f"{shapes.folder}/log", "wb") as log:  # noqa: PTH123
        processes = [
            subprocess.Popen([os.environ["PEER_TOOL"]], env={**os.environ, **settings}, stdout=log, stderr=log),
            subprocess.Popen([sys.executable, __file__, "serve", str(service)], stdout=log, stderr=log),
        ]
        try:
            wait_until_up(f"http://127.0.0.1:{admin}/health")
            wait_until_up(f"http://127.0.0.1:{service}/")
            wait_until_up(f"http://127.0.0.1:{ingress}/restate/health")
            registered = httpx.post(
                f"http://127.0.0.1:{admin}/deployments", json={"uri": f"http://127.0.0.1:{service}"}, timeout=60
            )
            registered.raise_for_status()
            yield f"http://127.0.0.1:{ingress}"
        finally:
            for process in processes:
                process.kill()  # hypercorn waits for connections that the server keeps
                process.wait()


class Client:
    def __init__(self, url: str) -> None:
        self._url = url

    def run(self, handler: str, given: int) -> object:
        return self.run_many(handler, given, 1)[0]

    def run_many(self, handler: str, given: int, count: int) -> list[object]:
        async def all_of_them() -> list[object]:
            async with httpx.AsyncClient(timeout=WAIT_SECONDS, limits=httpx.Limits(max_connections=None)) as http:
                asking = [http.post(f"{self._url}/flows/{handler}", json=given) for _ in range(count)]
                return [answer.raise_for_status().json() for answer in await asyncio.gather(*asking)]

        return asyncio.run(all_of_them())


def rate(steps_of_work: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return steps_of_work / (time.perf_counter() - began)


def start_wait(url: str, times: int) -> float:
    waits = []
    with httpx.Client(timeout=60) as http:
        for _ in range(times):
            before = time.time()
            waits.append(http.post(f"{url}/flows/chain", json=1).raise_for_status().json()[0] - before)
    return statistics.median(waits) * 1e3


def main() -> None:
    if sys.argv[1] == "serve":
        asyncio.run(serve(int(sys.argv[2])))
        return
    shapes = asked()
    with running(shapes) as url:
        client = Client(url)
        client.run("chain", 10)
        tell(
            shapes,
            {
                "W1": lambda: median_hop_ms(client.run("chain", shapes.length)),
                "W2": lambda: rate(shapes.width + 2, lambda: client.run("fan", shapes.width)),
                "W3": lambda: rate(shapes.runs * 10, lambda: client.run_many("chain", 10, shapes.runs)),
                "W4": lambda: start_wait(url, shapes.starts),
            },
        )


if __name__ == "__main__":
    main()
