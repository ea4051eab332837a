"""Maps that settle, batches and dynamic workflows on a whole engine with a worker."""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.client import Client
from tests.support.processes import site
from tests.support.running_engine import RunningEngine, running_engine
from tests.support.waiting import until, until_seen

pytestmark = pytest.mark.anyio

FLOW = """
import time
from pathlib import Path

from hopline import Err, Ok, Retry, context, dynamic, loop, step, workflow

BOOK = Path("book.txt")


def note(text: str) -> None:
    with BOOK.open("a") as book:
        book.write(text + "\\n")


@step(retry=Retry(2, first="0s"))
def picky(number: int) -> int:
    if number % 3 == 0:
        raise ValueError(f"{number} of attempt {context().attempt}")
    return number


@step
def sleepy(number: int) -> int:
    time.sleep(600 if number == 1 else 0)
    return number


@step
def large(number: int) -> str:
    return "x" * 300_000


@step
def lengths(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


@step
def slow(number: int) -> int:
    note(f"slow {number}")
    while not Path("go").exists():
        time.sleep(0.01)
    return number


@workflow
def settled(numbers: list[int]) -> list[Ok[int] | Err]:
    return picky.map_settled(numbers)


@workflow
def in_batches(numbers: list[int]) -> list[Ok[int] | Err]:
    return picky.using(batch=4).map_settled(numbers)


@workflow
def late(numbers: list[int]) -> list[Ok[int] | Err]:
    return sleepy.using(batch=4, timeout="4s", retry=Retry(1)).map_settled(numbers)


@workflow
def large_in_batches(numbers: list[int]) -> list[int]:
    return lengths(large.using(batch=10).map(numbers))


@step
def increase(number: int) -> int:
    note(f"increase {number}")
    return number + 1


@workflow
def counted(most: int) -> int:
    return loop(increase, 0, until=lambda number: number >= most, every="200ms", limit=20)


@workflow
def patient(most: int) -> int:
    return loop(increase, 0, until=lambda number: number >= most, every="1h", limit=20)


@workflow
def counted_by_runs(most: int) -> int:
    return loop(lambda number: increase(number), 0, until=lambda number: number >= most, every="200ms", limit=20)


@dynamic
def waits(number: int) -> int:
    note(f"traced {number}")
    return slow(number)


@workflow
def pinned(number: int) -> int:
    return waits(number)


def hidden_step() -> object:
    @step
    def unserved(number: int) -> int:
        return number

    return unserved


HIDDEN = [hidden_step()]


@dynamic
def refused(number: int) -> int:
    return HIDDEN[0](number)


@dynamic
def broken(number: int) -> int:
    if slow(number):
        return 1
    return 2


@workflow
def all_broken(numbers: list[int]) -> list[Ok[int] | Err]:
    return broken.map_settled(numbers)
"""


@pytest.fixture
def flow(tmp_path: Path) -> Path:
    file = tmp_path / "flow.py"
    file.write_text(FLOW)
    return file


@pytest.fixture
async def engine(tmp_path: Path, flow: Path, store: str) -> AsyncIterator[RunningEngine]:
    async with running_engine(tmp_path, flow, store=store) as engine:
        yield engine


def failed(number: int) -> dict[str, object]:
    return {"err": {"type": "ValueError", "message": f"{number} of attempt 2", "status": None}}


def settled(count: int) -> list[dict[str, object]]:
    return [failed(number) if number % 3 == 0 else {"ok": number} for number in range(count)]


@pytest.mark.parametrize("workflow", ["settled", "in_batches"])
async def test_elements_fail_and_succeed_each_for_itself(engine: RunningEngine, workflow: str) -> None:
    run = await engine.client.start(workflow, {"numbers": list(range(10))})
    ended = await engine.client.ended(run)
    assert (ended["state"], ended["result"]) == ("succeeded", settled(10))
    (step,) = ended["steps"]
    assert step["items"] == {"total": 10, "succeeded": 6, "failed": 4, "running": 0}
    attempts = await engine.client.attempts(run)
    counted = {item: sum(attempt["item"] == item for attempt in attempts) for item in range(10)}
    assert counted == {item: 2 if item % 3 == 0 else 1 for item in range(10)}


async def test_element_of_a_batch_that_is_late_fails_alone(engine: RunningEngine) -> None:
    ended = await engine.client.ended(await engine.client.start("late", {"numbers": [0, 1, 2, 3]}))
    first, second, *others = ended["result"]
    assert [first, *others] == [{"ok": 0}, {"ok": 2}, {"ok": 3}]
    assert second["err"]["type"] == "TimeoutError"


async def test_answers_that_are_too_large_together_come_in_several(engine: RunningEngine) -> None:
    ended = await engine.client.ended(await engine.client.start("large_in_batches", {"numbers": list(range(10))}))
    assert ended["result"] == [300_000] * 10


async def test_mistake_in_a_dynamic_body_fails_the_step_with_its_line(engine: RunningEngine) -> None:
    ended = await engine.client.ended(await engine.client.start("all_broken", {"numbers": [1]}))
    (outcome,) = ended["result"]
    assert outcome["err"]["type"] == "hopline.errors.DefinitionError"
    line = 1 + FLOW.splitlines().index("    if slow(number):")
    assert f"flow.py:{line}" in outcome["err"]["message"]
    assert "hint: " in outcome["err"]["message"]


async def test_step_that_the_worker_does_not_serve_is_refused_in_a_dynamic_body(engine: RunningEngine) -> None:
    ended = await engine.client.ended(await engine.client.start("refused", {"number": 1}))
    assert ended["state"] == "failed"
    assert "does not serve the step 'unserved'" in ended["error"]["message"]
    assert "hint: define the step at the top level" in ended["error"]["message"]


async def test_graph_of_a_dynamic_workflow_is_a_run_below_its_step(engine: RunningEngine, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    ended = await engine.client.ended(await engine.client.start("pinned", {"number": 7}))
    assert ended["result"] == 7
    (step,) = ended["steps"]
    assert step["kind"] == "dynamic"
    below = await engine.client.run(step["runs"][0]["run"])
    assert (below["workflow"], below["state"], below["input"]) == ("waits", "succeeded", {"slow": {"number": 7}})


async def test_killed_after_tracing_the_engine_does_not_trace_again(tmp_path: Path, flow: Path) -> None:
    book = tmp_path / "book.txt"
    async with site(tmp_path, flow) as place:
        client: Client = place.client
        run = await client.start("pinned", {"number": 7}, key="once")
        await until(lambda: book.exists() and "slow 7" in book.read_text(), "the graph's step runs")
        place.engine.kill()
        (tmp_path / "go").touch()
        await place.restart_engine()
        ended = await client.ended(run)
        assert (ended["state"], ended["result"]) == ("succeeded", 7)
        assert book.read_text().count("traced") == 1


async def test_laps_are_shown_and_rest_between_each_other(engine: RunningEngine, tmp_path: Path) -> None:
    run = await engine.client.start("counted", {"most": 3})
    ended = await engine.client.ended(run)
    assert (ended["state"], ended["result"]) == ("succeeded", 3)
    (loop,) = ended["steps"]
    assert (loop["id"], loop["kind"]) == ("increase", "loop")
    assert loop["items"] == {"total": 3, "succeeded": 3, "failed": 0, "running": 0}
    attempts = await engine.client.attempts(run)
    assert [attempt["item"] for attempt in attempts] == [0, 1, 2]
    times = [(_time(attempt["started_at"]), _time(attempt["ended_at"])) for attempt in attempts]
    assert all(begun - ended >= timedelta(seconds=0.2) for (_, ended), (begun, _) in pairwise(times))


async def test_loop_says_in_which_lap_it_is_and_when_the_next_one_begins(engine: RunningEngine) -> None:
    run = await engine.client.start("patient", {"most": 9})

    async def look() -> str | None:
        (step,) = (await engine.client.run(run))["steps"]
        return step["note"] if "lap 2" in (step["note"] or "") else None

    note = await until_seen(look, "the loop rests before its second lap")
    assert note.startswith("lap 2 of at most 20; increase[1] begins at ")
    assert await engine.client.cancel(run)


@pytest.mark.parametrize("workflow", ["counted", "counted_by_runs"])
async def test_killed_between_laps_the_engine_goes_on_with_the_next_one(
    tmp_path: Path, flow: Path, workflow: str
) -> None:
    async with site(tmp_path, flow) as place:
        run = await place.client.start(workflow, {"most": 12}, key="once")
        for lap in (2, 5, 8):
            await until(lambda: f"increase {lap}\n" in _book(tmp_path), f"lap {lap} ran")  # noqa: B023 - awaited here
            place.engine.kill()
            await place.restart_engine()
        ended = await place.client.ended(run)
        assert (ended["state"], ended["result"]) == ("succeeded", 12)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _book(folder: Path) -> str:
    book = folder / "book.txt"
    return book.read_text() if book.exists() else ""
