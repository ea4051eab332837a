"""What is stored of a schedule when it comes into force, and when another one does in its place."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec

from hopline.timing import ScheduleError, timing_of
from hopline_engine.core.schedules import shard_of_schedule
from hopline_engine.core.ticks import first_tick
from hopline_engine.scheduler.deciding import advanced
from hopline_engine.store import schedules
from hopline_engine.store.interface import Transaction
from hopline_engine.store.schedules import Advanced, StoredSchedule


def fresh(
    name: str, workflow: str, spec: Mapping[str, Any], moment: float, *, declared: bytes | None, run_input: bytes
) -> StoredSchedule:
    """Return a schedule that is made at a moment, and counts from there."""
    added = StoredSchedule(
        name=name,
        shard=shard_of_schedule(name),
        workflow=workflow,
        input=run_input,
        spec=msgspec.json.encode(spec),
        declared=declared,
        is_edited=False,
        is_paused=False,
        revision=1,
        created_at=moment,
        anchor_at=moment,
        next_tick=None,
        due_at=None,
        backfill=None,
    )
    return replace(added, **following(name, spec, moment, moment))


def in_force(known: StoredSchedule, spec: Mapping[str, Any], moment: float) -> dict[str, Any]:
    """Return what changes when another schedule is in force: if its times are others, it counts from now on."""
    body = msgspec.json.encode(spec)
    edited = {"spec": body, "is_edited": known.declared is not None and body != known.declared}
    if _times(spec) == _times(known.schedule):
        anchor, begin = known.anchor_at, moment if known.next_tick is None else known.next_tick - 0.001
    else:
        anchor, begin = moment, moment
    coming = following(known.name, spec, anchor, begin)
    if known.is_paused:
        coming["due_at"] = None
    return {**edited, "anchor_at": anchor, **coming}


def _times(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a schedule says of when its ticks are, without its policies."""
    return {name: value for name, value in spec.items() if name not in {"overlap", "catchup", "jitter"}}


def following(name: str, spec: Mapping[str, Any], anchor: float, after: float) -> dict[str, Any]:
    """Return which tick of a schedule comes next after a time, and when it is due, as columns."""
    tick, due_at = first_tick(name, spec, timing_of(spec, anchor), after)
    return {"next_tick": tick, "due_at": due_at}


def change(connection: Transaction, known: StoredSchedule, values: Mapping[str, Any]) -> bool:
    """Change a schedule as it is known; return whether it was still so.

    If its times change, the ticks whose time has come by those of before are decided on first.
    """
    if values.get("anchor_at", known.anchor_at) != known.anchor_at:
        due = _due_before(connection, known)
        if due is not None:
            schedules.advance(connection, [due])
            known = replace(known, revision=known.revision + 1)
    return schedules.change(connection, known, **values)


def _due_before(connection: Transaction, known: StoredSchedule) -> Advanced | None:
    """Return what is decided on the ticks whose time has come, if there are any.

    A tick whose jitter has not passed is one of them: it would be lost.
    """
    if known.is_paused or known.next_tick is None:
        return None
    looked = schedules.looked(connection, known)
    if known.next_tick > looked.now:
        return None
    try:
        return advanced(looked, {**known.schedule, "jitter": 0.0})
    except ScheduleError:  # it cannot be used on this machine, which may be why it is changed
        return None
