"""Kills the engine at each point where it could be torn apart, has another process finish the work, and audits it.

    python tests/crash/fail_points.py --passings 3

Every trial has a folder of its own: an engine that kills itself at a point of ``points``, one that goes on after it, a
worker, a target, a run with a little of everything, and one that is cancelled. How often each point is passed is
counted first, in a trial without a death.
"""

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Final

import httpx

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))  # the root of the repository, wherever this is called from

from tests.crash import flow, points
from tests.crash.audit import Wanted, audit
from tests.crash.books import Books, in_postgres, in_sqlite
from tests.crash.forked import Forked, serve, work
from tests.crash.points import Point, around
from tests.crash.target import Target
from tests.support.asgi import listening
from tests.support.client import Client
from tests.support.ports import free_port
from tests.support.postgres import database, empty_database
from tests.support.waiting import until, until_seen

TRIAL_SECONDS: Final = 120.0
"""Within which a trial has to be over; on an idle machine it takes two to five."""
ABREAST: Final = {"sqlite": 4, "postgres": 8}
"""How many trials are under way at a time: they wait more than they compute, on Postgres for a dead node's silence."""
SILENCE_SECONDS: Final = 4.0
"""After which a node is taken for dead; long enough that none is because the machine is busy with other trials."""
UNDER_WAY: Final = 8
"""How many lines the side-effect log has when a server is stopped in the middle of its work."""
IN_THE_MIDDLE: Final = {"sqlite": 6, "postgres": 15}
"""The commit after which a process dies whose successor is to die while it takes up what is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """Where the processes of one folder die, one after the other; the last one lives."""

    deaths: tuple[Point, ...] = ()
    fresh: bool = False
    """Whether the first one finds no store."""
    stopped: bool = False
    """Whether the first one is sent SIGTERM in the middle of its work."""

    def __str__(self) -> str:
        words = [", ".join(map(str, self.deaths))]
        return " ".join([*words, *["fresh"] * self.fresh, *["stopped"] * self.stopped])


@dataclass(slots=True)
class Result:
    """What came of a trial."""

    trial: Trial
    problems: list[str] = field(default_factory=list)
    missed: list[Point] = field(default_factory=list)
    """Points that were not reached before everything was done."""
    passed: Mapping[str, int] = field(default_factory=dict)
    """How often the last process of the trial passed each point."""


class Bench:
    """Tries trials in folders below one."""

    def __init__(self, folder: Path, store: str) -> None:
        self._folder = folder
        self._store = store
        self._template = folder / "template"

    async def try_all(self, passings: int | None) -> list[Result]:
        """Try every point, each at so many of its passings, or at all."""
        await self._make_template()
        counted = await self.attempt(Trial(fresh=True))
        trials = list(plan(self._store, counted.passed, passings))
        turns = asyncio.Semaphore(ABREAST[self._store])

        async def in_turn(trial: Trial) -> Result:
            async with turns:
                return await self.attempt(trial)

        return [counted, *await asyncio.gather(*map(in_turn, trials))]

    async def try_one(self, trial: Trial) -> Result:
        """Try one thing."""
        await self._make_template()
        return await self.attempt(trial)

    async def attempt(self, trial: Trial) -> Result:
        """Carry out one trial."""
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        async with self._place(folder, fresh=trial.fresh) as database:
            attempt = _Attempt(trial, folder, self._store, database)
            try:
                async with asyncio.timeout(TRIAL_SECONDS):
                    await attempt.carry_out()
            except (TimeoutError, AssertionError) as error:
                attempt.result.problems += [f"{error!r}", attempt.told()]
            finally:
                attempt.kill()
        if not attempt.result.problems:
            shutil.rmtree(folder)
        attempt.result.problems = [f"[{trial}] {problem}" for problem in attempt.result.problems]
        return attempt.result

    @asynccontextmanager
    async def _place(self, folder: Path, *, fresh: bool) -> AsyncIterator[str | None]:
        """Make a store without runs, or nothing; yield the URL of its database, if that is what it is."""
        if self._store == "postgres":
            async with empty_database() if fresh else database() as url:
                yield url
            return
        if not fresh:
            shutil.copytree(self._template / ".hopline", folder / ".hopline")
        yield None

    async def _make_template(self) -> None:
        if self._store == "postgres":
            async with database():  # the first of them makes the template
                return
        self._template.mkdir()
        port = free_port()
        told = self._template / "told"
        engine = Forked("engine", self._template, serve, {}, port, self._store, None, told)
        try:
            await until(lambda: (self._template / ".hopline" / "server.json").exists() or not engine.is_up, "it starts")
            assert engine.is_up, f"no server starts: {engine.told()}"
            engine.send(signal.SIGTERM)
            await engine.ended()
        finally:
            engine.kill()


class _Attempt:
    """One trial under way."""

    def __init__(self, trial: Trial, folder: Path, store: str, database: str | None) -> None:
        self.result = Result(trial)
        self._database = database
        self._trial = trial
        self._folder = folder
        self._store = store
        self._log = folder / "effects.log"
        self._log.touch()
        self._told = folder / "told"
        self._environment = {flow.LOG_VARIABLE: str(self._log)}
        if database is not None:
            silence = str(SILENCE_SECONDS)
            self._environment |= {"HOPLINE_STORE": database, "HOPLINE_NODE_SILENCE_SECONDS": silence}
        self._port = free_port()
        self._url = f"http://127.0.0.1:{self._port}"
        self._processes: dict[str, Forked] = {}
        self._wanted: dict[str, Wanted] = {}

    async def carry_out(self) -> None:
        """Work, die, go on, audit."""
        async with (
            httpx.AsyncClient(timeout=5, trust_env=False, verify=False) as http,
            listening(target := Target(str(self._log), http, patience=0.1)) as target_url,
            Client(self._url) as client,
        ):
            try:
                await self._work_and_die(client, target_url)
                await target.settle()
            except BaseException:
                self.kill()
                await target.close()
                raise
            await self._stop()
        self.result.problems += target.surprises
        file = self._folder / ".hopline" / "hopline.db"
        rows = in_sqlite(file) if self._database is None else await in_postgres(self._database)
        self.result.problems += audit(Books(rows, self._log), self._wanted, target.applied).problems()

    async def _work_and_die(self, client: Client, target_url: str) -> None:
        self.result.missed = list(self._trial.deaths)
        serving = asyncio.create_task(self._serve())
        working = asyncio.create_task(self._work(client, target_url))
        try:
            await asyncio.wait({serving, working}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await serving
            await working
        finally:
            serving.cancel()  # when a point was not reached, it still waits for that
            working.cancel()
            await asyncio.wait({serving, working})

    async def _serve(self) -> None:
        """Have a process serve, and the next one when it died, until the last one is up."""
        engine = self._start(self._trial.deaths[0] if self._trial.deaths else None)
        worker = Forked("worker", self._folder, work, self._environment, self._url, [flow.__file__])
        self._processes["worker"] = worker
        if self._trial.stopped:
            await until(self._is_under_way, "the work is under way")
            engine.send(signal.SIGTERM)
        for death, following in zip_longest(self._trial.deaths, self._trial.deaths[1:]):
            code = await engine.ended()
            assert code in {-signal.SIGKILL, 0}, f"the engine ended with {code}"
            if code:
                self.result.missed.remove(death)
            engine = self._start(following)

    def _start(self, death: Point | None) -> Forked:
        deadly = None if death is None else str(death)
        engine = Forked("engine", self._folder, serve, self._environment, self._port, self._store, deadly, self._told)
        self._processes["engine"] = engine
        return engine

    def _is_under_way(self) -> bool:
        return self._log.read_bytes().count(b"\n") >= UNDER_WAY

    async def _work(self, client: Client, target_url: str) -> None:
        """Start a run that ends and one that is cancelled, and follow both, whatever becomes of the engine."""
        await until_seen(client.worker_pids, "the worker is registered", TRIAL_SECONDS, lasts=True)
        given = {"target": target_url}
        run = await client.start("small_flow", given, key="ends")
        self._wanted[run] = Wanted(flow.expected(2, links=1))
        other = await client.start("small_flow", given, key="is cancelled")
        self._wanted[other] = self._wanted[run]
        await until(lambda: other in self._log.read_text(), "the other run has begun")
        if await client.cancel(other):
            self._wanted[other] = Wanted(None, cancelled_at=time.time())
        await client.ended(run)
        await client.ended(other)

    async def _stop(self) -> None:
        engine = self._processes["engine"]
        engine.send(signal.SIGTERM)
        await engine.ended()
        counts = self._told.with_suffix(".passed")
        if counts.exists():
            self.result.passed = json.loads(counts.read_text())

    def kill(self) -> None:
        """Leave no process behind."""
        for process in self._processes.values():
            process.kill()

    def told(self) -> str:
        """Return what the processes printed."""
        return "\n".join(process.told() for process in self._processes.values())


def plan(store: str, counts: Mapping[str, int], passings: int | None) -> Iterator[Trial]:
    """Yield the trials of every point, each at so many of its *counts* passings, or at all."""

    def at(names: Sequence[str]) -> Iterator[Point]:
        for name in names:
            assert counts.get(name), f"the point {name!r} is never reached"
            yield from (Point(name, passing) for passing in spread(counts[name], passings))

    opening = around(*points.OPENING[store])
    commits = around(*points.STORES[store])
    yield from (Trial(deaths=(death,)) for death in at(around(*points.WORK)))
    yield from (Trial(deaths=(death,)) for death in at((*commits, points.SENT)))
    yield from (Trial(deaths=(death,)) for death in at((*points.BEFORE_ANSWER, *points.AFTER_ANSWER)))
    yield from (Trial(deaths=(death,), fresh=True) for death in at((*opening, points.STATEMENT)))
    first = Point("after commit", IN_THE_MIDDLE[store])
    starting = [name for name in opening if "migrating" not in name] + [*around(*points.STARTING)]
    yield from (Trial(deaths=(first, Point(name, 1))) for name in starting)
    yield from (Trial(deaths=(first, Point(name, passing))) for name in commits for passing in (1, 2, 3))
    stopping = around(*points.STOPPING, *points.CLOSING[store])
    yield from (Trial(deaths=(Point(name, 1),), stopped=True) for name in stopping)


def spread(count: int, wanted: int | None) -> list[int]:
    """Return so many of the numbers from 1 to *count*, from the first to near the last.

    >>> spread(10, 3), spread(2, 3), spread(3, None)
    ([1, 5, 9], [1, 2], [1, 2, 3])
    """
    if wanted is None or wanted >= count:
        return list(range(1, count + 1))
    return sorted({1 + round(number * (0.9 * count - 1) / max(1, wanted - 1)) for number in range(wanted)})


def main() -> int:
    """Try what the command line asks for; return 1 when anything was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--store", choices=tuple(points.STORES), default="sqlite")
    parser.add_argument("--passings", type=int, help="how many passings of each point; all when left out")
    parser.add_argument("--deaths", help="try one thing only: points, with commas, as a failure names them")
    parser.add_argument("--fresh", action="store_true", help="with --deaths: begin without a store")
    parser.add_argument("--stopped", action="store_true", help="with --deaths: stop the first process in its work")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="hopline-points-"))
    bench = Bench(folder, given.store)
    began = time.monotonic()
    if given.deaths is None:
        results = asyncio.run(bench.try_all(given.passings))
    else:
        deaths = tuple(map(Point.parse, given.deaths.split(", ")))
        results = [asyncio.run(bench.try_one(Trial(deaths=deaths, fresh=given.fresh, stopped=given.stopped)))]
    problems = [problem for result in results for problem in result.problems]
    print(*problems, sep="\n")
    print("not reached:", *(f"[{result.trial}]" for result in results if result.missed))
    print(report(results), f"{time.monotonic() - began:.0f} s")
    if problems:
        print(f"the stores are kept in {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if problems else 0


def report(results: Sequence[Result]) -> str:
    """Return what was tried, in a line."""
    tried = [result for result in results if result.trial.deaths]
    names = {death.name for result in tried for death in result.trial.deaths if death not in result.missed}
    kills = sum(len(result.trial.deaths) - len(result.missed) for result in tried)
    missed = sum(len(result.missed) for result in tried)
    wrong = sum(bool(result.problems) for result in tried)
    return (
        f"{len(tried)} trials, {kills} kills at {len(names)} points, {missed} not reached, {wrong} trials went wrong;"
    )


if __name__ == "__main__":
    sys.exit(main())
