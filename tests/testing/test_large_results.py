"""Large results on the engine of tests, which may die at any moment."""

from pathlib import Path

from hopline import step, workflow
from hopline.testing import Engine
from hopline_engine.blobs.place import Folder
from hopline_engine.testing import Run

EVERY_DAY = "99999999"


@step
def letters(size: int) -> list[str]:
    return ["x" * 150_000] * size


@step
def size_of(item: str) -> int:
    return len(item)


@workflow
def sizes(size: int) -> list[int]:
    return size_of.map(letters(size))


def blobs(folder: Path) -> list[str]:
    return list(Folder(folder / "blobs").names(EVERY_DAY))


def test_outcome_is_the_same_wherever_the_engine_dies(engine: Engine) -> None:
    left = set()

    def drive(engine: Engine, run: Run[list[int]]) -> None:
        engine.advance("1m")

    for point in engine.crash_points(sizes, 2, drive=drive):
        assert point.outcome == point.outcome_without_crash == ("succeeded", [150_000] * 2)
        assert point.duplicate_effects == []
        left.add(point.moment)
    assert "before a commit" in left


def test_a_repeated_result_is_kept_once(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    for _ in range(2):
        run = engine.start(sizes, 2)
        engine.advance("1m")
        assert run.result() == [150_000] * 2
    engine.close()
    assert len(blobs(tmp_path)) == 1


def test_what_is_small_is_kept_nowhere_else(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    run = engine.start(sizes, 1)
    engine.advance("1m")
    assert run.result() == [150_000]
    engine.close()
    assert blobs(tmp_path) == []
