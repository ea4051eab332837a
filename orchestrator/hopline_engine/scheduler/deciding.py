"""What becomes of the ticks of a schedule that are due, as it is stored."""

from collections.abc import Iterable, Mapping
from typing import Any

from hopline.timing import timing_of
from hopline_engine.core.ticks import Standing, TickState, decide
from hopline_engine.store.schedules import Advanced, Looked, StoredTick


def advanced(looked: Looked, schedule: Mapping[str, Any] | None = None) -> Advanced:
    """Return what is decided on a schedule now, by *schedule* in place of what is in force."""
    known = looked.schedule
    schedule = known.schedule if schedule is None else schedule
    assert known.next_tick is not None
    own = [tick for tick in looked.ticks if tick.kind != "backfill"]
    standing = Standing(
        name=known.name,
        schedule=schedule,
        timing=timing_of(schedule, known.anchor_at),
        next_tick=known.next_tick,
        now=looked.now,
        running=sum(tick.is_running for tick in own),
        queued=sum(tick.state is TickState.QUEUED for tick in own),
    )
    return Advanced(known, decide(standing), over(looked.ticks))


def over(ticks: Iterable[StoredTick]) -> list[float]:
    """Return the ticks whose runs have ended."""
    return [tick.at for tick in ticks if tick.state is TickState.STARTED and not tick.is_running]
