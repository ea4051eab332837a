"""Schedules that are changed by people and by files: no tick is lost, and what was set by hand stays."""

from typing import Any

import pytest

from hopline_engine import clock
from hopline_engine.core.ticks import TickState
from hopline_engine.errors import InvalidScheduleError, ScheduleDeclaredError, ScheduleNotFoundError
from tests.core.worlds import definition, http_step
from tests.scheduler.hourly import HOUR, book, hourly, look, spoil, states, ticks, with_hourly
from tests.scheduler.several_nodes import Node, Nodes

pytestmark = pytest.mark.anyio

STARTED = TickState.STARTED


async def test_changed_schedule_counts_from_now_on(nodes: Nodes, node: Node) -> None:
    await book(node).create("s", "call", hourly(), {})
    changed = await book(node).update("s", {"kind": "every", "seconds": 600}, None)
    assert changed.next_tick is not None
    assert changed.next_tick - clock.now() < 601
    assert changed.schedule["seconds"] == 600
    with pytest.raises(InvalidScheduleError, match="10 s is the shortest"):
        await book(node).update("s", {"kind": "every", "seconds": 5}, None)


async def test_change_loses_no_tick_that_was_due(nodes: Nodes, node: Node) -> None:
    await with_hourly(nodes, node, aligned=True)
    due = (await book(node).get("s")).next_tick
    await book(node).update("s", {"kind": "cron", "expression": "0 * * * *"}, None)
    await look(node)
    assert [tick.at for tick in await ticks(node, "s")] == [due]


async def test_change_after_an_outage_leaves_the_ticks_of_the_outage_to_what_was_in_force_then(
    nodes: Nodes, node: Node
) -> None:
    await with_hourly(nodes, node, missed=3.5, catchup="all", overlap="allow")
    anchor = (await book(node).get("s")).anchor_at
    changed = await book(node).update("s", {"kind": "every", "seconds": 600}, None)
    await look(node)
    assert [(tick.at, tick.state) for tick in await ticks(node, "s")] == [
        (round(anchor + number * HOUR, 3), STARTED) for number in (1, 2, 3)
    ]
    assert changed.next_tick is not None
    assert changed.next_tick > clock.now() - 1


async def test_change_starts_the_run_of_a_tick_whose_jitter_has_not_passed(nodes: Nodes, node: Node) -> None:
    await with_hourly(nodes, node, jitter=1800)
    await nodes.write(f"UPDATE schedule SET due_at = due_at + {HOUR}")
    await look(node)
    assert await states(node) == []
    await book(node).update("s", {"kind": "every", "seconds": 600}, None)
    await look(node)
    assert await states(node) == [STARTED]


async def test_schedule_that_cannot_be_used_any_more_can_be_changed(nodes: Nodes, node: Node) -> None:
    await with_hourly(nodes, node)
    await spoil(nodes, "s")
    changed = await book(node).update("s", {"kind": "cron", "expression": "0 6 * * *"}, None)
    assert changed.schedule["tz"] == "UTC"


async def test_change_of_policies_alone_moves_no_tick(nodes: Nodes, node: Node) -> None:
    before = await book(node).create("s", "call", hourly(), {})
    after = await book(node).update("s", hourly(overlap="allow"), None)
    assert (after.next_tick, after.anchor_at) == (before.next_tick, before.anchor_at)
    assert after.schedule["overlap"] == "allow"


# --- files ------------------------------------------------------------------------------------------------------------


async def declare(node: Node, schedule: dict[str, Any] | None) -> list[str]:
    given = definition("daily", [http_step("daily", "http://x")])
    if schedule is not None:
        given["schedule"] = schedule
    await node.engine.controls.register([given], ["daily"])
    return await book(node).declare([node.engine.catalogue.current("daily")])


async def test_schedule_of_a_file_comes_changes_and_goes_with_it(nodes: Nodes, node: Node) -> None:
    assert await declare(node, hourly()) == []
    made = await book(node).get("daily")
    assert (made.workflow, made.is_edited) == ("daily", False)
    assert await declare(node, hourly()) == []
    assert (await book(node).get("daily")).revision == made.revision, "nothing has changed"
    await declare(node, hourly(overlap="allow"))
    assert (await book(node).get("daily")).schedule["overlap"] == "allow"
    with pytest.raises(ScheduleDeclaredError):
        await book(node).delete("daily")
    await declare(node, None)
    with pytest.raises(ScheduleNotFoundError):
        await book(node).get("daily")


async def test_edit_by_hand_survives_a_new_registration_and_says_so(nodes: Nodes, node: Node) -> None:
    await declare(node, hourly())
    await book(node).update("daily", {"kind": "every", "seconds": 600}, None)
    (note,) = await declare(node, hourly(overlap="allow"))
    assert "what was set by hand stays in force" in note
    kept = await book(node).get("daily")
    assert (kept.schedule["seconds"], kept.is_edited) == (600, True)
    reset = await book(node).reset("daily")
    assert (reset.schedule["seconds"], reset.schedule["overlap"], reset.is_edited) == (HOUR, "allow", False)
    assert await declare(node, hourly(overlap="allow")) == []


async def test_edited_schedule_stays_when_the_file_says_nothing_any_more(nodes: Nodes, node: Node) -> None:
    await declare(node, hourly())
    await book(node).update("daily", {"kind": "every", "seconds": 600}, None)
    (note,) = await declare(node, None)
    assert "hopline schedules delete daily" in note
    await book(node).delete("daily")


async def test_paused_schedule_of_a_file_stays_paused(nodes: Nodes, node: Node) -> None:
    await declare(node, hourly())
    await book(node).pause("daily")
    await declare(node, {"kind": "every", "seconds": 600})
    found = await book(node).get("daily")
    assert (found.is_paused, found.due_at, found.schedule["seconds"]) == (True, None, 600)
