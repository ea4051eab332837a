"""Kills the engine, the worker, or both, again and again, and audits what is left.

    python tests/crash/kill_harness.py --kills 100 --seed 7

Everything is real: ``hopline serve`` and a worker as processes, killed with SIGKILL at random moments and started
again on the same folder, while runs of ``flow`` are kept open. When all kills are done the open runs must end within
a deadline; then the store and the side-effect log are audited. Processes are not deterministic, so a seed repeats the
moments of the kills and not what they hit: run it again with more kills when it failed once.
"""

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))  # the root of the repository, wherever this is called from

from tests.crash import flow
from tests.crash.audit import Books, Findings, Wanted, audit
from tests.crash.target import Target
from tests.support.asgi import listening
from tests.support.processes import START_SECONDS, Process, Site, site
from tests.support.waiting import until_seen

FLOW: Final = Path(flow.__file__)
VICTIMS: Final = ("engine", "worker", "both")
AT_ONCE: Final = 0.2
"""How many kills come so soon after a start that the process is not up yet."""
CANCELLED: Final = 0.1
"""How many runs are cancelled while they run."""
LONGEST_SECONDS: Final = 8.0
"""What a kill may cost on average, restart included, before the harness gives up on the whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to do to the processes."""

    victim: str
    """One of ``VICTIMS``, or ``mixed``."""
    kills: int
    seed: int
    runs: int = 3
    """How many runs are open at a time."""
    workers: int = 2
    deadline_seconds: float = 120.0
    """Within which the open runs have to end after the last kill."""

    @property
    def command(self) -> str:
        """The command that does the same again."""
        options = f"--victim {self.victim} --kills {self.kills} --seed {self.seed}"
        return f"python tests/crash/kill_harness.py {options} --runs {self.runs} --workers {self.workers}"


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    order: Order
    findings: Findings
    killed: dict[str, int]
    seconds: float
    drained_seconds: float
    """From the last kill to the end of the last run."""
    problems: list[str] = field(default_factory=list)


class Campaign:
    """One order, carried out in one folder."""

    def __init__(self, order: Order, folder: Path) -> None:
        self._order = order
        self._folder = folder
        self._random = random.Random(f"kills {order.seed} {order.victim}")
        self._fate = random.Random(f"runs {order.seed} {order.victim}")
        self._wanted: dict[str, Wanted] = {}
        self._killed: dict[str, int] = {"engine": 0, "worker": 0}
        self._killing = True
        self._started = 0

    async def carry_out(self) -> Outcome:
        """Run, kill, wait, audit."""
        began = time.monotonic()
        log = self._folder / "effects.log"
        log.touch()
        async with (
            httpx.AsyncClient(timeout=5, trust_env=False) as http,
            listening(target := Target(str(log), http)) as url,
            site(self._folder, FLOW, **{flow.LOG_VARIABLE: str(log)}) as place,
        ):
            for _ in range(self._order.workers - 1):
                await place.hire(FLOW).ready()
            problems, drained = await self._run_and_kill(place, url)
            if not problems:
                await asyncio.wait_for(target.settle(), 30)
            for process in (*place.workers, place.engine):
                await process.stop()
        findings = audit(Books(place.engine.store, log), self._wanted, target.applied)
        return Outcome(
            order=self._order,
            findings=findings,
            killed=self._killed,
            seconds=time.monotonic() - began,
            drained_seconds=drained,
            problems=[*problems, *findings.problems(), *target.surprises],
        )

    async def _run_and_kill(self, place: Site, target_url: str) -> tuple[list[str], float]:
        """Return what went wrong, and how long the runs took to end after the last kill."""
        running = [asyncio.create_task(self._keep_running(place, target_url)) for _ in range(self._order.runs)]
        try:
            async with asyncio.timeout(60 + LONGEST_SECONDS * self._order.kills):
                await self._kill(place)
        except (TimeoutError, AssertionError) as error:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            return [f"the processes could not be killed and started as often as asked: {error!r}"], 0.0
        killed_at = time.monotonic()
        _, late = await asyncio.wait(running, timeout=self._order.deadline_seconds)
        problems = await self._explained(place) if late else []
        for task in late:
            task.cancel()
        ends = await asyncio.gather(*running, return_exceptions=True)
        problems += [repr(error) for error in ends if isinstance(error, Exception)]
        return problems, time.monotonic() - killed_at

    async def _explained(self, place: Site) -> list[str]:
        """Return why the runs that are still open are not further."""
        told = [f"runs did not end within {self._order.deadline_seconds:g} s"]
        for run in self._wanted:
            if (await place.client.run(run))["state"] == "running":
                why = await place.client.ask("GET", f"/runs/{run}/why")
                told += [f"{run}: {reason['text']}" for reason in why["reasons"]]
        return told

    async def _keep_running(self, place: Site, target_url: str) -> None:
        """Start a run and follow it to its end, then the next, as long as there are kills to come."""
        while self._killing:
            self._started += 1
            key = f"{self._order.seed}-{self._started}"
            run = await place.client.start("crash_flow", {"target": target_url}, key=key)
            self._wanted[run] = Wanted(flow.expected())
            if self._fate.random() < CANCELLED:
                await asyncio.sleep(self._fate.uniform(0.0, 3.0))
                await self._cancel(place, run)
            await place.client.ended(run, within=self._order.deadline_seconds + LONGEST_SECONDS * self._order.kills)

    async def _cancel(self, place: Site, run: str) -> None:
        """Cancel a run, unless it has ended; asked again until there is an answer, as the engine may die over it."""

        async def look() -> bool:
            with suppress(httpx.TransportError):
                answer = await place.client.http.post(f"/runs/{run}/cancel")
                return not answer.is_server_error
            return False

        await until_seen(look, f"{run} is cancelled", START_SECONDS)
        if (await place.client.run(run))["state"] == "cancelled":
            self._wanted[run] = Wanted(None, cancelled_at=time.time())

    async def _kill(self, place: Site) -> None:
        for _ in range(self._order.kills):
            victims = self._victims(place)
            if self._random.random() < AT_ONCE:
                await asyncio.sleep(self._random.uniform(0.0, 0.5))
            else:
                for victim in victims:
                    await victim.ready()
                await asyncio.sleep(self._random.uniform(0.0, 1.5))
            for victim in victims:
                victim.kill()
                self._killed["engine" if victim is place.engine else "worker"] += 1
            await asyncio.sleep(self._random.uniform(0.0, 0.3))
            for victim in victims:
                victim.start()
        self._killing = False

    def _victims(self, place: Site) -> Sequence[Process]:
        kind = self._order.victim if self._order.victim != "mixed" else self._random.choice(VICTIMS)
        worker = self._random.choice(place.workers)
        chosen: dict[str, Sequence[Process]] = {
            "engine": [place.engine],
            "worker": [worker],
            "both": [place.engine, worker],
        }
        return chosen[kind]


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as lines of text."""
    counted = ("runs", "cancelled", "step runs", "executions", "lost attempts", "executed and lost")
    wrong = ("lost", "duplicated", "stuck", "order", "attempts")
    heads = ["kills of", "engine", "worker", *counted, *wrong, "seconds", "drained"]
    rows = [heads]
    for outcome in outcomes:
        found, counts = outcome.findings, outcome.findings.counts
        rows.append(
            [
                outcome.order.victim,
                *(str(number) for number in outcome.killed.values()),
                *(str(counts[name]) for name in counted),
                *(str(len(getattr(found, name))) for name in wrong),
                f"{outcome.seconds:.0f}",
                f"{outcome.drained_seconds:.1f}",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def main() -> int:
    """Carry out what the command line orders; return 1 when anything was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="moments to kill at, for each sort of victim")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--runs", type=int, default=3, help="open at a time")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--victim", choices=(*VICTIMS, "mixed"), action="append", help="default: engine, worker, both, one by one"
    )
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    outcomes = []
    for victim in given.victim or VICTIMS:
        order = Order(victim=victim, kills=given.kills, seed=given.seed, runs=given.runs, workers=given.workers)
        folder = Path(tempfile.mkdtemp(prefix="hopline-kills-"))
        outcome = asyncio.run(Campaign(order, folder).carry_out())
        outcomes.append(outcome)
        if outcome.problems:
            print(*outcome.problems[:50], sep="\n")
            print(f"{len(outcome.problems)} problems; the store is kept in {folder}; again with: {order.command}")
        else:
            shutil.rmtree(folder)
        print(json.dumps({victim: outcome.findings.counts}), flush=True)
    print(table(outcomes))
    return 1 if any(outcome.problems for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
