"""Kills nodes, workers, or both, again and again, and audits what is left.

    python tests/crash/kill_harness.py --kills 100 --seed 7
    python tests/crash/kill_harness.py --store postgres --kills 100 --seed 7

Everything is real: ``hopline serve`` (one on SQLite, two on one Postgres) and workers as processes, killed with SIGKILL
at random moments and started again, while runs of ``flow`` are kept open; Postgres itself is crashed and started again
now and then. When all kills are done the open runs must end within a deadline; then the store and the side-effect log
are audited. Processes are not deterministic, so a seed repeats the moments of the kills and not what they hit: run it
again with more kills when it failed once.
"""

import argparse
import asyncio
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))  # the root of the repository, wherever this is called from

from tests.crash import flow
from tests.crash.audit import Findings, Wanted, audit
from tests.crash.books import Books
from tests.crash.cluster import PATIENCE, STORES, Cluster, cluster
from tests.crash.recovering import Blow, Recoveries, recoveries
from tests.crash.target import Target
from tests.support.asgi import listening
from tests.support.client import Client
from tests.support.processes import Process
from tests.support.waiting import WITHIN

FLOW: Final = Path(flow.__file__)
VICTIMS: Final = ("node", "worker", "both", "nodes")
"""Both are a node and a worker; the nodes are all of them at once."""
AT_ONCE: Final = 0.2
"""How many kills come so soon after a start that the process is not up yet."""
CANCELLED: Final = 0.1
"""How many runs are cancelled while they run."""
LONGEST_SECONDS: Final = 20.0
"""What a kill may cost on average, restart included, before the harness gives up on the whole."""
LONGEST_RUN_SECONDS: Final = 86_400.0
"""How long a run may stay open while there are kills to come; afterwards the order's deadline counts."""
SILENCE_SECONDS: Final = 2.0
"""After which a node is taken for dead."""
KILLED: Final = ("node", "worker", "store")
"""What is counted of the kills."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to do to the processes."""

    victim: str
    """One of ``VICTIMS``, or ``mixed``."""
    kills: int
    seed: int
    store: str = "sqlite"
    runs: int = 3
    """How many runs are open at a time."""
    workers: int = 2
    silence: float = SILENCE_SECONDS
    """Seconds after which a node is taken for dead."""
    rest: float = 0.0
    """Seconds of peace before each kill, so that everything has recovered from the one before."""
    restart_every: int = 20
    """After how many kills Postgres is crashed, too."""
    durable: bool = False
    """Whether Postgres waits for the disk: a crash of it does not ask for that, and it takes longer."""
    deadline_seconds: float = 120.0
    """Within which the open runs have to end after the last kill."""

    @property
    def command(self) -> str:
        """The command that does the same again."""
        options = f"--store {self.store} --victim {self.victim} --kills {self.kills} --seed {self.seed}"
        return f"python tests/crash/kill_harness.py {options} --runs {self.runs} --workers {self.workers}"


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    order: Order
    findings: Findings
    killed: Counter[str]
    seconds: float
    drained_seconds: float
    """From the last kill to the end of the last run."""
    recoveries: Recoveries
    healed: Counter[str]
    """What the engine found wrong and put right, by kind."""
    problems: list[str] = field(default_factory=list)


class Campaign:
    """One order, carried out in one folder."""

    def __init__(self, order: Order, folder: Path) -> None:
        self._order = order
        self._folder = folder
        self._random = random.Random(f"kills {order.seed} {order.victim}")
        self._fate = random.Random(f"runs {order.seed} {order.victim}")
        self._wanted: dict[str, Wanted] = {}
        self._killed: Counter[str] = Counter()
        self._blows: list[Blow] = []
        self._killing = True
        self._started = 0

    async def carry_out(self) -> Outcome:
        """Run, kill, wait, audit."""
        began = time.monotonic()
        order = self._order
        log = self._folder / "effects.log"
        log.touch()
        environment = {flow.LOG_VARIABLE: str(log), "HOPLINE_NODE_SILENCE_SECONDS": str(order.silence)}
        made = cluster(
            self._folder,
            FLOW,
            store=order.store,
            workers=order.workers,
            durable=order.durable,
            environment=environment,
        )
        async with (
            httpx.AsyncClient(timeout=5, trust_env=False, verify=False) as http,
            listening(target := Target(str(log), http)) as url,
            made as place,
        ):
            problems, drained = await self._run_and_kill(place, url)
            healed = await self._healed(place)
            if not problems:
                await asyncio.wait_for(target.settle(), WITHIN)
            for process in reversed(place.processes):
                await process.stop()
            books = Books(await place.store.rows(), log)
        findings = audit(books, self._wanted, target.applied)
        return Outcome(
            order=order,
            findings=findings,
            killed=self._killed,
            seconds=time.monotonic() - began,
            drained_seconds=drained,
            recoveries=recoveries(books, self._blows),
            healed=healed,
            problems=[*problems, *findings.problems(), *target.surprises],
        )

    async def _run_and_kill(self, place: Cluster, target_url: str) -> tuple[list[str], float]:
        """Return what went wrong, and how long the runs took to end after the last kill."""
        running = [asyncio.create_task(self._keep_running(place, target_url)) for _ in range(self._order.runs)]
        try:
            async with asyncio.timeout(60 + (LONGEST_SECONDS + 2 * self._order.rest) * self._order.kills):
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

    async def _explained(self, place: Cluster) -> list[str]:
        """Return why the runs that are still open are not further."""
        told = [f"runs did not end within {self._order.deadline_seconds:g} s"]
        for run in self._wanted:
            if (await place.client.run(run))["state"] == "running":
                why = await place.client.ask("GET", f"/runs/{run}/why")
                told += [f"{run}: {reason['text']}" for reason in why["reasons"]]
        return told

    async def _healed(self, place: Cluster) -> Counter[str]:
        healed: Counter[str] = Counter()
        for node in place.nodes:
            await node.ready()
            async with Client(node.url) as client:
                healed.update((await client.ask("GET", "/health"))["healed"])
        return healed

    async def _keep_running(self, place: Cluster, target_url: str) -> None:
        """Start a run and follow it to its end, then the next, as long as there are kills to come."""
        while self._killing:
            self._started += 1
            key = f"{self._order.seed}-{self._started}"
            run = await place.client.start("crash_flow", {"target": target_url}, key=key)
            self._wanted[run] = Wanted(flow.expected())
            if self._fate.random() < CANCELLED:
                await asyncio.sleep(self._fate.uniform(0.0, 3.0))
                await self._cancel(place, run)
            await place.client.ended(run, within=LONGEST_RUN_SECONDS)

    async def _cancel(self, place: Cluster, run: str) -> None:
        """Cancel a run, unless it has ended; what has to become of it is known afterwards."""
        if await place.client.cancel(run, PATIENCE):
            self._wanted[run] = Wanted(None, cancelled_at=time.time())

    async def _kill(self, place: Cluster) -> None:
        for number in range(1, self._order.kills + 1):
            victims = self._victims(place)
            await asyncio.sleep(self._order.rest)
            if self._order.rest == 0 and self._random.random() < AT_ONCE:
                await asyncio.sleep(self._random.uniform(0.0, 0.5))
            else:
                for victim in victims:
                    await victim.ready()
                await asyncio.sleep(self._random.uniform(0.0, 1.5))
            for victim in victims:
                await self._strike(place, victim)
            await asyncio.sleep(self._random.uniform(0.0, 0.3))
            for victim in victims:
                victim.start()
            if place.store.server is not None and number % self._order.restart_every == 0:
                await self._crash_store(place)
        self._killing = False

    async def _strike(self, place: Cluster, victim: Process) -> None:
        node = next((node for node in place.nodes if node is victim), None)
        shards = await place.store.shards_of(node.url) if node is not None else []
        victim.kill()
        if node is not None:
            self._blows.append(Blow("node", time.time(), frozenset(shards)))
        self._killed["worker" if node is None else "node"] += 1

    async def _crash_store(self, place: Cluster) -> None:
        for node in place.nodes:
            await node.ready()  # one that starts without a database says so and ends
        await asyncio.sleep(self._order.rest)
        await place.restart_store()
        self._blows.append(Blow("store", time.time(), frozenset(range(64))))
        self._killed["store"] += 1

    def _victims(self, place: Cluster) -> Sequence[Process]:
        kind = self._order.victim if self._order.victim != "mixed" else self._random.choice(VICTIMS)
        node, worker = self._random.choice(place.nodes), self._random.choice(place.workers)
        chosen: dict[str, Sequence[Process]] = {
            "node": [node],
            "worker": [worker],
            "both": [node, worker],
            "nodes": place.nodes,
        }
        return chosen[kind]


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the outcomes as lines of text."""
    counted = ("runs", "cancelled", "step runs", "executions", "lost attempts", "executed and lost")
    wrong = ("lost", "duplicated", "stuck", "order", "attempts")
    heads = ["kills of", *KILLED, *counted, *wrong, "seconds", "drained"]
    rows = [heads]
    for outcome in outcomes:
        found, counts = outcome.findings, outcome.findings.counts
        rows.append(
            [
                outcome.order.victim,
                *(str(outcome.killed[name]) for name in KILLED),
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
    parser.add_argument("--store", choices=STORES, default="sqlite")
    parser.add_argument("--kills", type=int, default=100, help="moments to kill at, for each sort of victim")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--runs", type=int, default=3, help="open at a time")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--silence", type=float, default=SILENCE_SECONDS, help="after which a node is taken for dead")
    parser.add_argument("--rest", type=float, default=0.0, help="seconds of peace before each kill, to time recoveries")
    parser.add_argument("--restart-every", type=int, default=20, help="kills, for Postgres itself")
    parser.add_argument("--durable", action="store_true", help="let Postgres wait for the disk")
    parser.add_argument(
        "--victim", choices=(*VICTIMS, "mixed"), action="append", help="default: all of these, one by one"
    )
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    outcomes = []
    for victim in given.victim or VICTIMS:
        order = Order(
            victim=victim,
            kills=given.kills,
            seed=given.seed,
            store=given.store,
            runs=given.runs,
            workers=given.workers,
            silence=given.silence,
            rest=given.rest,
            restart_every=given.restart_every,
            durable=given.durable,
        )
        folder = Path(tempfile.mkdtemp(prefix="hopline-kills-"))
        outcome = asyncio.run(Campaign(order, folder).carry_out())
        outcomes.append(outcome)
        if outcome.problems:
            print(*outcome.problems[:50], sep="\n")
            print(f"{len(outcome.problems)} problems; the store is kept in {folder}; again with: {order.command}")
        else:
            shutil.rmtree(folder)
        print(json.dumps({victim: outcome.findings.counts, "healed": outcome.healed}))
        print(outcome.recoveries, flush=True)
    print(table(outcomes))
    return 1 if any(outcome.problems for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
