"""What ``hopline doctor`` says: how an installation is, and everything that is wrong with it, each with what to do.

Works on a store that is looked into from outside, and says more when there is the engine that works on it.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, Final

from hopline_engine import clock
from hopline_engine.blobs.blobs import Blobs
from hopline_engine.blobs.place import Place
from hopline_engine.core.decision import Limits
from hopline_engine.core.live import LiveTask
from hopline_engine.core.plan import Route
from hopline_engine.core.shards import SHARDS
from hopline_engine.queue.admission import Hindrance, Queue
from hopline_engine.scheduler.comparing import OF_MEMORY
from hopline_engine.scheduler.definitions import Catalogue
from hopline_engine.scheduler.engine import Engine
from hopline_engine.scheduler.rehearsal import OF_PLANS, Walk
from hopline_engine.settings import Settings
from hopline_engine.store import audit, nodes, schedules, schema
from hopline_engine.store.audit import OF_NODES, OF_ROWS, Audit, Finding
from hopline_engine.store.condition import Condition, condition
from hopline_engine.store.interface import Reads
from hopline_engine.store.key_audits import OF_CLAIMS
from hopline_engine.store.nodes import StoredNode
from hopline_engine.store.references import referred_to

MOST_EVIDENCE: Final = 20
"""Findings of one audit that are shown; all are counted."""

LITTLE_DISK_BYTES: Final = 200 * 2**20
MOST_BLOBS: Final = 10_000
"""Large results that are looked for, the newest."""

PROBE: Final = "probe/hopline-doctor"
STARVED_SECONDS: Final = 60.0
"""How long the oldest task of a queue may wait for the queue's limits before that is worth telling."""

SKEW_SECONDS: Final = 2.0
OVERDUE_SECONDS: Final = 120.0
"""How long after its time a schedule may be looked at: twice what counts as on time."""


class State(StrEnum):
    """How serious something is."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing, and perhaps as it is meant to be."""
    WRONG = "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    text: str
    hint: str | None = None
    evidence: tuple[Mapping[str, Any], ...] = ()
    is_audit: bool = False
    """Whether it is something that must always be true of rows and memory, and not how things are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All that was looked at."""

    at: float
    checks: list[Check]
    healed: Mapping[str, int] = field(default_factory=dict)
    """How often the engine repaired something since it started, by the audit that found it."""


async def examine(reads: Reads, settings: Settings, now: float, engine: Engine | None = None) -> Diagnosis:
    """Look at a store, and at the engine that works on it where there is one."""
    found = await reads.read(partial(condition, settings=settings))
    checks = [*_of_store(found, is_ours=engine is not None)]
    if found.revision == schema.HEAD:
        catalogue = engine.catalogue if engine is not None else Catalogue(reads)
        checks += await _of_rows(reads, catalogue, settings, now)
    if engine is not None:
        checks += [*await _of_memory(engine), *_of_engine(engine, now)]
        checks += [*await _of_secrets(engine), await _of_blobs(reads, engine.blobs)]
    checks += _of_settings(settings)
    healed = dict(engine.reconciler.healed) if engine is not None else {}
    return Diagnosis(at=now, checks=checks, healed=healed)


# --- the store --------------------------------------------------------------------------------------------------------


def _of_store(found: Condition, *, is_ours: bool) -> Iterator[Check]:
    yield Check(name="store", state=State.OK, text=f"{found.kind} at {found.place}")
    if found.held_by is not None and not is_ours:
        text = f"process {found.held_by} has the store open, and no server answers: it starts, stops, or hangs"
        yield Check(name="holder", state=State.NOTE, text=text, hint=f"if it stays, end it: kill {found.held_by}")
    if found.revision == schema.HEAD:
        yield Check(name="schema", state=State.OK, text=f"revision {found.revision}, the newest")
    else:
        text = f"revision {found.revision or 'none'}, and this version works with {schema.HEAD}; its rows are not read"
        yield Check(name="schema", state=State.NOTE, text=text, hint="the next server upgrades it: hopline serve")
    yield _size(found)
    skew = found.now - clock.now()
    yield Check(
        name="clock",
        state=State.OK if abs(skew) < SKEW_SECONDS else State.WRONG,
        text=f"the database's differs by {skew * 1000:.0f} ms",
        hint=None if abs(skew) < SKEW_SECONDS else "keep the clocks of all machines in step, as with NTP",
    )


def _size(found: Condition) -> Check:
    text = f"{_bytes(found.size_bytes)}"
    if found.log_bytes is not None:
        text += f" and a log of {_bytes(found.log_bytes)}"
    if found.free_bytes is None:
        return Check(name="size", state=State.OK, text=text)
    text += f"; {_bytes(found.free_bytes)} are free on its disk"
    if found.free_bytes < LITTLE_DISK_BYTES:
        hint = "make room: when the disk is full, nothing can be decided any more"
        return Check(name="size", state=State.WRONG, text=text, hint=hint)
    return Check(name="size", state=State.OK, text=text)


async def _of_schedules(reads: Reads) -> list[Check]:
    found = await reads.read(partial(schedules.overdue, seconds=OVERDUE_SECONDS, limit=MOST_EVIDENCE))
    if not found:
        return []
    name, late = found[0]
    evidence = tuple({"schedule": name, "late_seconds": round(late)} for name, late in found)
    text = f"no server has looked at schedule {name} since it was due {late:.0f} s ago"
    hint = "schedules fire under hopline serve and hopline dev; its catchup says what is made up for then"
    return [Check(name="schedules", state=State.NOTE, text=text, hint=hint, evidence=evidence)]


async def _of_rows(reads: Reads, catalogue: Catalogue, settings: Settings, now: float) -> list[Check]:
    walk = Walk(reads, catalogue, Limits(map_window=settings.map_window), now)
    await walk.look()
    return [
        *_of_findings((*OF_ROWS, *OF_CLAIMS, *OF_PLANS), walk.findings),
        Check(name="rows", state=State.OK, text=f"looked at {walk.scope()}"),
        *_of_definitions(catalogue),
        *await _of_nodes(reads, settings, now),
        *await _of_schedules(reads),
    ]


def _of_findings(audits: Iterable[Audit], findings: Iterable[Finding], broken: State = State.WRONG) -> Iterator[Check]:
    by_audit: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_audit[finding.audit.name].append(finding)
    for each in audits:
        found = by_audit[each.name]
        if not found:
            yield Check(name=each.name, state=State.OK, text=f"never: {each.means}", is_audit=True)
            continue
        evidence = tuple(finding.evidence for finding in found[:MOST_EVIDENCE])
        text = f"{each.means} ({len(found)} found)"
        yield Check(name=each.name, state=broken, text=text, hint=each.hint, evidence=evidence, is_audit=True)


def _of_definitions(catalogue: Catalogue) -> Iterator[Check]:
    for digest, reason in catalogue.unusable.items():
        text = f"version {digest[:12]} of a workflow cannot be run by this server: {reason}"
        hint = "its runs wait; upgrade the server to the version that the definition was registered with"
        yield Check(name="definition", state=State.WRONG, text=text, hint=hint, evidence=({"digest": digest},))


async def _of_nodes(reads: Reads, settings: Settings, now: float) -> list[Check]:
    silence = settings.node_silence_seconds
    alive = [node for node in await reads.read(nodes.all_nodes) if now - node.heartbeat_at < silence]
    if not alive:  # then nobody is expected to hold a shard either
        text = "none is up, so that no run goes on"
        return [Check(name="node", state=State.NOTE, text=text, hint="hopline serve")]
    found = await reads.read(partial(audit.node_rows, silence=silence))
    # Nodes put this right among themselves within seconds, and lowered limits are reached as tasks end.
    return [*_of_findings(OF_NODES, found, State.NOTE), *(_of_node(node, now) for node in alive)]


def _of_node(node: StoredNode, now: float) -> Check:
    beat = f"showed that it is alive {max(0.0, now - node.heartbeat_at):.0f} s ago"
    url = f" at {node.url}" if node.url else ""
    text = f"{node.id}{url} holds {len(node.shards)} of {SHARDS} shards, {beat}"
    return Check(name="node", state=State.OK, text=text)


# --- the engine -------------------------------------------------------------------------------------------------------


async def _of_memory(engine: Engine) -> list[Check]:
    reconciler = engine.reconciler
    found = [finding for finding in await reconciler.look() if finding.audit in OF_MEMORY]
    return list(_of_findings(OF_MEMORY, [finding for finding in found if await reconciler.is_so(finding)]))


def _of_engine(engine: Engine, now: float) -> Iterator[Check]:
    if engine.trouble is not None:
        hint = "nothing is lost: what was decided is kept, and tried again until it is written"
        yield Check(name="trouble", state=State.WRONG, text=f"the store takes no writes: {engine.trouble}", hint=hint)
    for worker in engine.workers:
        seen = max(0.0, now - worker.seen_at)
        steps = f"{len(worker.routes)} steps, {worker.in_flight} of {worker.concurrency} places taken"
        text = f"{worker.id} (pid {worker.pid} on {worker.host}): {steps}, heard of {seen:.0f} s ago"
        yield Check(name="worker", state=State.OK, text=text)
    for queue in engine.admission.queues.values():
        yield from _of_queue(engine, queue, now)
    yield from _of_waiting(engine)
    for name, times in sorted(engine.reconciler.healed.items()):
        kept = [healed.finding.evidence for healed in engine.reconciler.latest if healed.finding.audit.name == name]
        text = f"{name} was repaired {times} times since this server started"
        hint = "hopline made a mistake, or something else wrote to the store; please report it with its evidence"
        yield Check(name="healed", state=State.NOTE, text=text, hint=hint, evidence=tuple(kept[-MOST_EVIDENCE:]))


def _of_queue(engine: Engine, queue: Queue, now: float) -> Iterator[Check]:
    if not queue.ready:
        return
    oldest = now - min(task.schedule_time for task in engine.admission.waiting(queue))
    waits = f"{queue.ready:,} tasks are due, the oldest for {oldest:.0f} s"
    if queue.is_paused:
        text, hint = f"{queue.name} is paused; {waits}", f"hopline queues resume {queue.name}"
        yield Check(name="queue", state=State.NOTE, text=text, hint=hint)
    elif oldest > STARVED_SECONDS and queue.is_full:
        text = f"{queue.name} has {queue.in_flight} of {queue.max_concurrent_dispatches} tasks in flight; {waits}"
        hint = "its targets are slower than its tasks come; raise its limit, or look at them"
        yield Check(name="queue", state=State.NOTE, text=text, hint=hint)
    elif oldest > STARVED_SECONDS and queue.max_dispatches_per_second is not None:
        text = f"{queue.name} sends {queue.max_dispatches_per_second:g} tasks a second at most; {waits}"
        yield Check(name="queue", state=State.NOTE, text=text, hint="its tasks come faster; raise its rate")


def _of_waiting(engine: Engine) -> Iterator[Check]:
    """Say which steps wait for a worker that is not there."""
    waiting: dict[Route, set[str]] = defaultdict(set)
    for queue in engine.admission.queues.values():
        for task in engine.admission.waiting(queue):
            if isinstance(task, LiveTask) and engine.admission.hindrance(task) is Hindrance.NO_WORKER:
                waiting[task.node.route].add(task.run.public_id)
    for route, runs in sorted(waiting.items()):
        some = tuple({"run": run} for run in sorted(runs)[:MOST_EVIDENCE])
        text = f"{len(runs)} runs wait: no worker serves step {route.step} in the version that they need"
        hint = "start a worker with the files of that version: hopline worker PATH"
        yield Check(name="no-worker", state=State.WRONG, text=text, hint=hint, evidence=some)


async def _of_blobs(reads: Reads, blobs: Blobs) -> Check:
    if blobs.place is None:
        return Check(name="blobs", state=State.OK, text="large results stay in rows; the setting blobs is not set")
    needed = await reads.read(referred_to)
    seen = sorted(needed)[-MOST_BLOBS:]
    try:
        gone = await blobs.ask(lambda place: [name for name in seen if not place.has(name)])
        await blobs.ask(_try_to_write)
    except Exception as error:  # noqa: BLE001 - whatever the place says is what is wrong
        text = f"large results cannot be kept at {blobs.place.shown}: {error}"
        return Check(name="blobs", state=State.WRONG, text=text, hint="steps with large results fail until they can")
    if gone:
        return Check(
            name="blobs",
            state=State.WRONG,
            text=f"{len(gone)} large results that rows refer to are not at {blobs.place.shown}",
            hint="bring them back from a backup; steps that need them fail",
            evidence=tuple({"blob": name, "bytes": needed[name]} for name in gone[:MOST_EVIDENCE]),
        )
    text = f"{len(needed)} large results at {blobs.place.shown}, {_bytes(sum(needed.values()))}"
    return Check(name="blobs", state=State.OK, text=text)


def _try_to_write(place: Place) -> None:
    place.write(PROBE, b"probe")
    place.remove(PROBE)


async def _of_secrets(engine: Engine) -> list[Check]:
    return [
        Check(
            name="secret",
            state=State.WRONG,
            text=f"{missing.message.partition('; ')[0]}, and {', '.join(missing.used_by)} needs it",
            hint=missing.message.partition("; ")[2],
        )
        for missing in await engine.secrets.missing()
    ]


def _of_settings(settings: Settings) -> Iterator[Check]:
    off = []
    if not settings.api_token:
        off.append("api_token: whoever reaches this machine's own addresses may use the API")
    if settings.egress == "open":
        off.append("egress: HTTP steps may call private addresses too")
    if settings.key is None and not settings.is_on_postgres:
        off.append("key: the one that signs callbacks lies in the state folder")
    for text in off:
        yield Check(name="setting", state=State.OK, text=text)


def _bytes(size: int) -> str:
    """Return a size for people.

    >>> _bytes(512), _bytes(5 * 2**20), _bytes(3 * 2**40)
    ('512 B', '5.0 MiB', '3072.0 GiB')
    """
    if size < 1024:
        return f"{size} B"
    for unit, factor in (("KiB", 2**10), ("MiB", 2**20)):
        if size < 1024 * factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size / 2**30:.1f} GiB"
