"""Several worker processes under one: starts them, and starts another for each that dies.

Python runs one thread at a time; steps that compute use several cores only as several processes. Each registers with
the engine by itself. The parent imports no user's file.
"""

import asyncio
import contextlib
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from typing import Any

from hopline_engine import clock
from hopline_engine.worker.options import Options, to_arguments
from hopline_engine.worker.parent import Report, Stop, say, serving, take_stdin
from hopline_engine.worker.problems import LoadError

RESTART_SECONDS = 0.5
LONGEST_RESTART_SECONDS = 30.0
STEADY_SECONDS = 10.0
"""A process that lived so long did not die of its start; the next one is started without waiting longer."""


def supervise(options: Options) -> int:
    """Run ``options.processes`` workers until told to stop; return the exit status, 1 when the first cannot start."""
    pipe = take_stdin() if options.exit_with_parent else None
    return asyncio.run(_supervise(options, Report(options.report_fd), pipe))


async def _supervise(options: Options, report: Report, pipe: int | None) -> int:
    stop = Stop()
    stop.listen(asyncio.get_running_loop(), pipe)
    first, told = await _start_first(options, stop)
    if stop.asked.is_set() or not told.get("ok"):
        await _end(first)
        report.failed([LoadError(**error) for error in told.get("errors", ())])
        return 0 if stop.asked.is_set() else 1
    report.send(told)
    if options.report_fd is None and not options.exit_with_parent:
        say(serving(told["workflows"], options.server))
    others = [await _start(options) for _ in range(options.processes - 1)]
    await asyncio.gather(*(_keep(process, options, stop) for process in (first, *others)))
    return 0


async def _start(options: Options, report_fd: int | None = None) -> Process:
    command = [sys.executable, "-P", "-m", "hopline_engine.worker", *to_arguments(options, report_fd)]
    return await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, pass_fds=() if report_fd is None else (report_fd,)
    )


async def _start_first(options: Options, stop: Stop) -> tuple[Process, dict[str, Any]]:
    """Start a process and return it with its report, which is empty when it died or was stopped before."""
    reading, writing = os.pipe()
    process = await _start(options, writing)
    os.close(writing)
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb"))
    line, asked = asyncio.create_task(reader.readline()), asyncio.create_task(stop.asked.wait())
    await asyncio.wait({line, asked}, return_when=asyncio.FIRST_COMPLETED)
    told = json.loads(line.result() or b"{}") if line.done() else {}
    line.cancel()
    asked.cancel()
    transport.close()
    return process, told


async def _keep(process: Process, options: Options, stop: Stop) -> None:
    """Start another process whenever *process*, or one after it, dies; end the last one when told to stop."""
    wait = RESTART_SECONDS
    while True:
        started = clock.monotonic()
        ended = asyncio.create_task(process.wait())
        asked = asyncio.create_task(stop.asked.wait())
        await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if stop.asked.is_set():
            await _end(process)
            return
        say(f"process {process.pid} ended with status {process.returncode}; starting another")
        was_steady = clock.monotonic() - started > STEADY_SECONDS
        wait = RESTART_SECONDS if was_steady else min(2 * wait, LONGEST_RESTART_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await stop.asked.wait()
            return
        process = await _start(options)


async def _end(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    await process.wait()
