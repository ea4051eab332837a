"""Which waiting tasks of a queue are in memory: those that come first, whatever else waits."""

from hypothesis import given
from hypothesis import strategies as st

from hopline_engine.core.cloud.model import CloudTaskId
from hopline_engine.queue.windows import WINDOW, Window
from hopline_engine.store.cloud_pushes import Due


def loaded(times: list[float], *, most: int = WINDOW) -> Window:
    window = Window("q")
    rows = sorted(Due(CloudTaskId(number), time) for number, time in enumerate(times, 1))
    window.load(sorted(rows, key=lambda row: row.schedule_time)[:most], most)
    return window


def test_a_window_that_holds_all_takes_new_tasks_without_reading() -> None:
    window = loaded([1.0, 2.0])

    assert window.is_whole
    assert window.take_in(CloudTaskId(9), 5.0) is not None
    assert not window.must_load()


def test_a_full_window_leaves_later_tasks_to_the_store() -> None:
    window = loaded([float(number) for number in range(WINDOW)])

    assert not window.is_whole
    assert window.take_in(CloudTaskId(WINDOW + 1), WINDOW + 5.0) is None
    assert window.take_in(CloudTaskId(WINDOW + 2), 0.5) is not None


def test_what_comes_while_the_store_is_read_is_held() -> None:
    window = loaded([1.0], most=1)
    window.is_loading = True

    assert window.take_in(CloudTaskId(9), 1e9) is not None
    window.load([], WINDOW)
    assert CloudTaskId(9) in window.held


def test_tasks_that_wait_for_a_far_time_make_room_for_one_that_is_due() -> None:
    window = loaded([1000.0 + number for number in range(WINDOW)])
    for number in range(WINDOW):
        window.take_in(CloudTaskId(10_000 + number), 1000.0)

    let_go = window.make_room(0.0)

    assert len(let_go) == WINDOW
    assert window.take_in(CloudTaskId(99_999), 0.0) is not None
    assert max(task.schedule_time for task in window.held.values()) <= min(task.schedule_time for task in let_go)


def test_what_came_while_the_store_was_read_does_not_keep_out_what_comes_before_it() -> None:
    window = loaded([1.0], most=1)
    window.is_loading = True
    for number in range(WINDOW):
        window.take_in(CloudTaskId(10_000 + number), 1e9)

    window.load([Due(CloudTaskId(number), 1.0) for number in range(1, WINDOW + 1)], WINDOW)
    let_go = window.trim()
    for task in [task for task in window.held.values() if task.number <= WINDOW]:
        window.let_go(task)

    assert len(let_go) == WINDOW
    assert window.must_load(), "what is due next is read, whatever waits for a far time"


def test_a_window_that_holds_all_is_not_trimmed() -> None:
    window = loaded([1.0, 1e9])

    assert window.trim() == []
    assert len(window.held) == 2


def test_a_window_has_much_due_only_if_half_of_it_is_for_now() -> None:
    window = loaded([1.0] * (WINDOW // 2 - 1) + [1e9] * (WINDOW // 2))

    assert not window.has_much_due(2.0)
    window.take_in(CloudTaskId(10_000), 2.0)
    assert window.has_much_due(2.0)
    assert not window.has_much_due(0.5)


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=60), st.integers(1, 8))
def test_nothing_that_comes_before_the_horizon_is_missing(steps: list[tuple[int, bool]], most: int) -> None:
    window = Window("q")
    window.load([], most)
    stored: dict[CloudTaskId, float] = {}
    for number, (time, is_new) in enumerate(steps):
        if is_new or not window.held:
            stored[CloudTaskId(number)] = float(time)
            window.make_room(float(time))
            window.take_in(CloudTaskId(number), float(time))
        else:
            first = min(window.held.values(), key=lambda task: task.schedule_time)
            del window.held[first.number], stored[first.number]
        if window.must_load() and not window.is_whole:
            rows = sorted((Due(*item) for item in stored.items()), key=lambda row: row.schedule_time)
            window.load(rows[:most], most)
        missing = [time for task, time in stored.items() if task not in window.held]
        assert all(not window.is_whole and time >= window.horizon for time in missing)


def test_what_is_being_sent_is_not_read_back_into_the_window() -> None:
    window = loaded([1.0, 2.0])
    first = window.held[CloudTaskId(1)]
    window.let_go(first)
    window.is_whole = False

    added = window.load([Due(CloudTaskId(1), 1.0), Due(CloudTaskId(3), 3.0)], WINDOW)

    assert [task.number for task in added] == [3]


def test_each_time_that_a_task_is_held_the_admission_knows_it_by_another_number() -> None:
    window = loaded([1.0])
    again = window.take_in(CloudTaskId(1), 5.0)

    assert again is not None
    assert again.id < 0
    assert again.id != loaded([1.0]).held[CloudTaskId(1)].id
