"""What two nodes do to one queue of the queue service, or to one task, at the same time."""

import asyncio
from collections.abc import Sequence

import pytest

from tests.interleavings.explore import explore
from tests.interleavings.orders import Extent
from tests.interleavings.pairs import ALL_KINDS, Pair
from tests.interleavings.world import ALIVE

MOST = 30
KNOWN = {kind.name: kind for kind in ALL_KINDS}


def _find_no_anomaly(pairs: Sequence[tuple[str, str]]) -> None:
    found = asyncio.run(
        explore([Pair((KNOWN[one], KNOWN[other]), ALIVE) for one, other in pairs], Extent(most=MOST)),
    )
    assert [anomaly for each in found for anomaly in each.anomalies] == []
    assert all(each.tally.orders > 2 and each.waits for each in found), "they did not meet"


@pytest.mark.parametrize("other", ["makes a cloud queue", "adds a cloud task with its queue"])
def test_queue_that_two_nodes_make_is_made_by_one_and_found_by_the_other(other: str) -> None:
    _find_no_anomaly([("makes a cloud queue", other)])


def test_queue_that_is_deleted_while_it_is_changed_leaves_no_limits() -> None:
    _find_no_anomaly([("deletes a cloud queue", "changes a cloud queue")])


def test_two_changes_of_different_settings_of_a_queue_are_both_kept() -> None:
    _find_no_anomaly([("changes a cloud queue", "changes the retries of a cloud queue")])


def test_pause_of_a_queue_undoes_no_change_of_its_limits() -> None:
    _find_no_anomaly([("pauses or resumes a cloud queue", "changes a cloud queue")])


def test_pause_of_a_queue_that_is_deleted_meanwhile_leaves_no_limits() -> None:
    _find_no_anomaly([("pauses or resumes a cloud queue", "deletes a cloud queue")])


@pytest.mark.parametrize("other", ["deletes a cloud task", "deletes a cloud queue"])
def test_task_that_is_deleted_while_it_is_run_by_force_is_run_or_not_found(other: str) -> None:
    _find_no_anomaly([("runs a cloud task", other), (other, "runs a cloud task")])


def test_of_two_that_delete_a_task_one_is_told_that_it_is_gone() -> None:
    _find_no_anomaly([("deletes a cloud task", "deletes a cloud task")])
