"""The world of one simulation: nodes on a store, those who call them and are called, and all that goes wrong.

It plays until the time is over, then heals everything, and demands that every run ends. What it checks on the way is
said where it is checked; what must be true in the end is in ``verdict``.
"""

import asyncio
import logging
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import httpx
import msgspec

from hopline_engine.core.model import RunId, RunMoved
from hopline_engine.core.planning import build_plan
from hopline_engine.store.errors import OwnershipLostError
from tests.core.flows import Flow
from tests.simulation import checks, flows, scarce
from tests.simulation.approvals import Approvals
from tests.simulation.batches import elements_of
from tests.simulation.faults import CALM_SHARE, Faults
from tests.simulation.forks import Forks
from tests.simulation.heartbeats import Heartbeats
from tests.simulation.kinds import Kinds
from tests.simulation.large import Bucket
from tests.simulation.ledger import Ledger, ViolationError, Write
from tests.simulation.loop import Delays, SimulationLoop
from tests.simulation.network import Answer, Network, Request
from tests.simulation.node import FIRST_PORT, START, Node
from tests.simulation.people import Conducts, Key, ServiceHost, WorkerHost, about
from tests.simulation.sensors import Sensors
from tests.simulation.timetable import Timetable

log = logging.getLogger(__name__)

SHARED_SHARE = 0.2
SLUGGISH_SHARE = 0.15
"""Of the simulations that are not calm: much waits for the disk, and so meets what is decided meanwhile."""
FAST_READS = 0.5
"""Of these: only commits wait, so that rows are read while what was decided before is not yet among them."""
KILLED_UNDOING = 0.7
"""Share of the moments at which a run begins to undo that are the last ones of a node, where nodes are killed."""
TARGET_HOST = "target.test"
CALL_SECONDS = 10.0


@dataclass
class Wanted:
    """A run that a client asked for, and knows of."""

    run: str
    flow: Flow
    workflow: str


@dataclass
class Figures:
    """What happened in a simulation."""

    seed: int
    is_calm: bool
    kills: int = 0
    worker_kills: int = 0
    troubles: int = 0
    callbacks: int = 0
    refusals: int = 0
    runs: int = 0
    steps: int = 0
    attempts: int = 0
    executions: int = 0
    commits: int = 0
    ticks: int = 0
    """Of schedules, that have a run."""
    turns: int = 0
    virtual_seconds: float = 0.0
    digest: str = ""


@dataclass
class World:
    """See the module."""

    seed: int
    path: Path
    template: Path
    trace: Callable[[str], None] | None = None
    loop: SimulationLoop = field(init=False)

    def __post_init__(self) -> None:
        self.random = Random(f"world {self.seed}")
        self.fate = Random(f"fate {self.seed}")
        """Of what was added later, so that it leaves the rest of each simulation alone."""
        self.is_calm = self.random.random() < CALM_SHARE
        self.is_shared = self.random.random() < SHARED_SHARE
        """Whether there are several nodes."""
        self.faults = Faults() if self.is_calm else Faults.draw(self.random)
        if self.is_shared and not self.is_calm:  # nodes that are taken for dead and go on are what sharing is about
            self.faults.holds = self.random.choice((self.faults.holds, 3.0, 6.0))
        self.is_sluggish = not self.is_calm and self.random.random() < SLUGGISH_SHARE
        if self.is_sluggish:
            self.faults.disk_tail, self.faults.commit_unknown = 0.4, self.random.choice((0.0, 0.15))
        self.loop = SimulationLoop(self.seed)
        self.loop.disk.tail, self.loop.disk.longest = self.faults.disk_tail, self.random.choice((0.5, 3.0, 12.0))
        if self.is_sluggish and self.fate.random() < FAST_READS:
            self.loop.reads, self.faults.commit_unknown = Delays(), 0.15
        self.kinds = Kinds(self.seed)
        self.bucket = Bucket(self.seed)
        self.ledger = Ledger(turns=self.kinds.turns)
        self.timetable = Timetable.draw(self)
        """The schedules, in some simulations."""
        self.conducts = Conducts(self)
        self.heartbeats = Heartbeats(self)
        self.approvals = Approvals(self)
        self.sensors = Sensors(self)
        self.forks = Forks(self)
        self.nodes: dict[int, Node] = {}
        self.started_nodes = 0
        self.workers: list[WorkerHost] = []
        self.hosts: dict[str, Any] = {TARGET_HOST: ServiceHost(self)}
        self.network = Network(self.loop, Random(f"network {self.seed}"), self.faults, self.hosts, self.note_fault)
        self.figures = Figures(self.seed, self.is_calm)
        self.flows: list[Flow] = []
        self.queues = flows.draw_queues(self.random)
        self.wanted: dict[str, Wanted] = {}
        self.applied: dict[Key, int] = {}
        """Callbacks that were acknowledged as applied."""
        self.cancel_acknowledged: set[RunId] = set()
        self.cancels: Counter[str] = Counter()
        """How often each run was asked to end."""
        self.resume_asked: set[RunId] = set()
        """Runs that somebody asked to go on after a pause."""
        self.events_there: set[str] = set()
        """Keys of events that were acknowledged."""
        self.extra_commits = 0
        """Commits that are not for a step: pauses, and what ends them."""
        self.faults_drawn = replace(self.faults)
        """As they were before all was healed."""
        self.is_healed = False
        self.is_pausing_certain = True
        """Whether it is known of every pause and resume of a queue what became of it."""
        self.starts_in_doubt = 0
        """Starts without a key: there may be a run nobody heard of, or even two."""
        self.row_commits = 0
        self.limits: dict[str, int] = {"narrow": self.queues[0]["max_concurrent_dispatches"]}
        """The highest limits that were ever set."""
        self.latest_jump = 0.0
        self.violation: asyncio.Future[None] | None = None
        self.audit: Any = None
        """A connection that looks into the store from outside."""

    # --- being told

    def violated(self, what: str) -> None:
        """Note that something happened that must not, and stop."""
        self.say(f"VIOLATION {what}")
        if self.violation is not None and not self.violation.done():
            self.violation.set_exception(ViolationError(what))

    def say(self, what: str) -> None:
        if self.trace is not None:
            self.trace(f"{self.loop.time():10.4f}  {what}")

    def hits(self, share: float) -> bool:
        return share > 0 and self.random.random() < share

    def flow_of(self, workflow: str) -> Flow:
        return next(flow for flow in self.flows if workflow in flow.definitions)

    def note_fault(self, request: Request) -> None:
        """Note that a message about an attempt was touched by a fault."""
        for each in elements_of(request):
            if b"hopline-run" in each.headers:
                public, step, attempt = about(each)
                self.conducts.disturbed.add((self.ledger.place(public, step), attempt))
                self.say(f"fault on {public}/{step} attempt {attempt}")

    def note_trouble(self, node: Node, error: Exception | None) -> None:
        self.say(f"{node.name}: {f'trouble: {error}' if error else 'trouble is over'}")
        self.figures.troubles += error is not None
        if self.is_calm:
            self.violated(f"trouble in a calm simulation: {error!r}")

    def on_commit(self, node: Node, writes: list[Write]) -> None:
        """Take a transaction into the ledger."""
        if self.trace is not None:
            for kind, rows in writes:
                for row in rows:
                    self.say(f"{node.name} commits {kind} {tuple(row)}")
        self.row_commits += bool(writes)
        # One that stops may leave in the transaction in which the last of its decisions is written.
        if self.is_shared and writes and not node.is_leaving and not self.is_member(node):
            self.violated(f"{node.name} commits, and was taken for dead before")
        try:
            self.ledger.commit(writes)
            scarce.check_stored_keys(self)
            self.heartbeats.check(writes)
        except Exception as error:  # noqa: BLE001 - it must not look like trouble of the disk
            self.violated(repr(error))
        if self.timetable is not None:
            self.timetable.ledger.look(node)
        self._threaten(node, writes)

    def _threaten(self, node: Node, writes: list[Write]) -> None:
        """Perhaps let a node die that has begun to undo a run: this takes so short that it would hardly ever happen."""
        moves = [RunMoved(*row) for kind, rows in writes if kind == "runs_moved" for row in rows]
        may_die = self.faults.kills or self.faults.killed_at_commit
        if may_die and any(move.ending for move in moves) and self.fate.random() < KILLED_UNDOING:
            self.loop.spawn(None, self._kill_soon(node))

    async def _kill_soon(self, node: Node) -> None:
        await asyncio.sleep(self.fate.uniform(0, 1))
        if node.can_be_killed and node.process.is_alive and not self.is_healed:
            self.kill(node)

    def on_open(self, node: Node) -> None:
        """Check what a node knows before it sends anything."""
        checks.check_tokens(self, node)

    def on_send(self, node: Node, request: Request) -> str:
        """Check a request that leaves a node; return the queue that it takes a slot of."""
        queues = [self._check_sent(node, each) for each in elements_of(request)]
        checks.check_concurrency(self, node, queues[0])
        return queues[0]

    def _check_sent(self, node: Node, request: Request) -> str:
        """Check an attempt that is sent: it is durable, and so is all that it needs (I6, P6)."""
        public, step, attempt = about(request)
        place = self.ledger.place(public, step)
        self.say(f"{node.name} sends {public}/{step} attempt {attempt}")
        lease = self.ledger.leases.get((place, attempt))
        if lease is None:
            self.violated(f"{public}/{step} attempt {attempt} is sent and not durable")
            return ""
        if missing := self.ledger.missing_upstreams(place):
            self.violated(f"{public}/{step} is sent before {missing} succeeded")
        is_cancelled = self.ledger.root(place[0]) in self.cancel_acknowledged
        is_of_end = place[1] < 0 or self.ledger.node(place[0], place[1]).closes is not None
        # Who was taken for dead may still send what it had leased before.
        if is_cancelled and self.is_member(node) and (not is_of_end or place[0] in self.ledger.rows.ended):
            self.violated(f"{public}/{step} attempt {attempt} is sent after its run was cancelled")
        return lease.queue

    def on_answer(self, node: Node, request: Request, answer: Answer) -> None:
        """Check what the API acknowledges, at the moment when it does: it is durable (P1, P2, P6)."""
        self.say(f"{node.name} answers {request.method} {request.path}: {answer.status} {answer.body[:200]!r}")
        self.figures.refusals += answer.status >= 400
        if self.violation is not None and not self.violation.done():
            problem = checks.problem_of_answer(self, request, answer)
            if problem:
                self.violated(f"{request.method} {request.path} was answered {answer.status}, but {problem}")

    # --- asking the API

    def listening(self) -> list[Node]:
        """Return the nodes that can be asked, in order."""
        return [node for _, node in sorted(self.nodes.items()) if node.is_listening]

    async def ask_url(self, url: str, body: Mapping[str, Any] | None, headers: Mapping[bytes, bytes]) -> Answer | None:
        """Post to a URL of a node, or return ``None`` if no answer came."""
        port, _, path = url.removeprefix("http://127.0.0.1:").partition("/")
        return await self._ask(int(port) - FIRST_PORT, "POST", f"/{path}", body, headers)

    async def ask(self, slot: int, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer | None:
        """Send a request to the API of a node, or return ``None`` if no answer came."""
        return await self._ask(slot, method, f"/api/v1{path}", body, {})

    async def _ask(
        self, slot: int, method: str, path: str, body: Mapping[str, Any] | None, headers: Mapping[bytes, bytes]
    ) -> Answer | None:
        request = Request(method, path, dict(headers), msgspec.json.encode(body) if body is not None else b"")
        await asyncio.sleep(self.network.latency())
        if self.hits(self.faults.call_lost):
            await asyncio.sleep(self.random.uniform(0, CALL_SECONDS))
            return None
        if self.hits(self.faults.call_repeated):
            self.loop.spawn(None, self._deliver(slot, request))
        answer = await self._deliver(slot, request)
        await asyncio.sleep(self.network.latency())
        return None if self.hits(self.faults.call_answer_lost) else answer

    async def _deliver(self, slot: int, request: Request) -> Answer | None:
        node = self.nodes.get(slot)
        if node is None:
            return None
        if request.path.endswith("/cancel"):
            self.cancels[request.path.split("/")[-2]] += 1
        with suppress(httpx.ConnectError, TimeoutError):
            async with asyncio.timeout(CALL_SECONDS):
                return await node.ask(request)
        return None

    async def insist(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Answer:
        """Ask any node until one of them gives an answer that is no 5xx."""
        while True:
            listening = self.listening()
            if listening:
                slot = self.random.choice(listening).slot
                answer = await self.ask(slot, method, path, body)
                if answer is not None and answer.status < 500:
                    return answer
            await asyncio.sleep(self.random.uniform(0.2, 1.0))

    async def forward(self, port: int, request: Request) -> Answer:
        """Carry a request from one node to another."""
        await asyncio.sleep(self.network.latency())
        node = self.nodes.get(port - FIRST_PORT)
        if node is None or self.hits(self.faults.request_refused):
            raise httpx.ConnectError(f"cannot connect to port {port}")
        if self.hits(self.faults.request_lost):
            await asyncio.sleep(self.random.uniform(0, CALL_SECONDS))
            raise httpx.ReadTimeout("no answer")
        try:
            answer = await asyncio.shield(self.loop.spawn(None, node.ask(request)))
        finally:
            await asyncio.sleep(self.network.latency())
        if self.hits(self.faults.answer_lost):
            raise httpx.ReadError("connection reset")
        return answer

    # --- nodes

    def now(self) -> float:
        """Return the time that the database of several nodes tells."""
        return START + self.loop.time()

    def is_member(self, node: Node) -> bool:
        """Return whether the store still takes what a node decides."""
        rows = self.audit.execute("SELECT 1 FROM node WHERE id = ?", (node.name,)).fetchall()
        return bool(rows)

    def on_lost(self, node: Node) -> None:
        """Do as a server does that was taken for dead: leave, and come back as a new node."""
        self.say(f"{node.name} was taken for dead")
        if self.is_calm or not self.is_shared:
            self.violated(f"{node.name} was taken for dead")
        node.can_be_killed = False
        self.loop.call_in(None, lambda: self.loop.create_task(self.replace(node)))

    async def boot(self, slot: int) -> Node:
        """Start a process of the engine."""
        self.started_nodes += 1
        node = self.nodes[slot] = Node(self, slot, self.started_nodes)
        self.say(f"{node.name} starts in slot {slot}")
        try:
            booting = self.loop.spawn(node.process, node.boot())
            await asyncio.wait([booting, node.killed], return_when=asyncio.FIRST_COMPLETED)
            if booting.done():
                await booting
        except OwnershipLostError:  # taken for dead before it listened: a server would end, and be started again
            self.say(f"{node.name} was taken for dead while it started")
            if self.is_calm or not self.is_shared:
                self.violated(f"{node.name} was taken for dead while it started")
            node.kill()
            self.loop.spawn(None, self._restart(slot))
        except Exception as error:  # noqa: BLE001 - whatever it is, a node must start
            self.violated(f"{node.name} cannot start: {error!r}")
        return node

    def kill(self, node: Node) -> None:
        """Kill a process of the engine; somebody starts another one."""
        self.say(f"{node.name} is killed")
        self.figures.kills += 1
        node.kill()
        self.loop.spawn(None, self._restart(node.slot))

    async def replace(self, node: Node) -> None:
        """Stop a process as an operator does, and start another one."""
        self.say(f"{node.name} is stopped")
        await self.loop.spawn(node.process, node.stop())
        await asyncio.sleep(self.random.uniform(0.1, 3))
        await self.boot(node.slot)

    async def _restart(self, slot: int) -> None:
        await asyncio.sleep(self.random.uniform(0.01, 5.0))
        self.loop.spawn(None, self.boot(slot))

    def add_worker(self, number: int) -> WorkerHost:
        worker = WorkerHost(self, f"w{number}", 9000 + number)
        self.hosts[worker.netloc] = worker
        self.workers.append(worker)
        self.loop.spawn(worker.process, worker.live())
        return worker

    # --- beginning and end

    def open(self) -> None:
        """Lay out the store, and draw the workflows."""
        shutil.copyfile(self.template, self.path)
        self.audit = sqlite3.connect(self.path, isolation_level=None)
        self.violation = self.loop.create_future()
        self._draw_flows()

    def _draw_flows(self) -> None:
        """Draw the workflows of this simulation."""
        for number in range(self.random.randint(1, 3)):
            flow = flows.draw_flow(self.random, f"w{number}", self.queues, self.kinds, is_calm=self.is_calm)
            self.flows.append(flow)
            if self.timetable is not None:
                self.timetable.declare(flow)
            for body in flow.definitions.values():
                digest = flows.digest_of(body)
                children = {plan.digest: plan for plan in self.ledger.plans.values()}
                self.ledger.plans[digest] = build_plan(body, digest, children)  # type: ignore[arg-type]

    def take_apart(self) -> None:
        """Close what the system would close when all processes are dead."""
        for node in self.nodes.values():
            if node.process.is_alive:
                node.kill()
        if self.audit is not None:
            self.audit.close()
        self.loop.dismantle()
