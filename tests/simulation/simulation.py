"""Runs one simulation from its seed."""

import asyncio
import gc
import logging
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hopline_engine import clock
from hopline_engine.store.sqlite import open_store
from hopline_engine.testing.virtual_loop import DeadlockError
from tests.simulation.acts import Acts
from tests.simulation.ledger import ViolationError
from tests.simulation.loop import OutOfTimeError
from tests.simulation.node import START
from tests.simulation.verdict import Verdict
from tests.simulation.world import Figures, World

MEMORY = Path("/dev/shm")  # a folder that no disk is behind


@dataclass(frozen=True)
class Report:
    """What became of a simulation."""

    figures: Figures
    violation: str | None = None

    def __str__(self) -> str:
        """Return what to do about a violation."""
        if self.violation is None:
            return f"seed {self.figures.seed}: nothing is wrong"
        seed = self.figures.seed
        return f"seed {seed}: {self.violation}\n  python -m tests.simulation.run --seed {seed} -v"


class Simulator:
    """Runs simulations one after the other, in a folder of their own."""

    def __init__(self) -> None:
        parent = MEMORY if MEMORY.is_dir() else None
        self._folder = Path(tempfile.mkdtemp(prefix="hopline-simulation-", dir=parent))
        self._template = self._folder / "template.db"
        with _seeded_tokens(0):
            asyncio.run(self._make_template())
        gc.collect()
        gc.freeze()

    def close(self) -> None:
        """Remove what is left."""
        shutil.rmtree(self._folder)

    def run(self, seed: int, trace: Callable[[str], None] | None = None) -> Report:
        """Run one simulation."""
        path = self._folder / "store.db"
        gc.disable()
        world = World(seed, path, self._template, trace)
        violation = None
        logging.disable(logging.CRITICAL)
        try:
            with _seeded_tokens(seed):
                world.loop.run_until_complete(_play(world))
        except ViolationError as error:
            violation = str(error)
        except (DeadlockError, OutOfTimeError) as error:
            violation = f"{type(error).__name__} {error}"
        except Exception as error:
            violation = f"the simulation itself failed: {error!r}"
            if trace is not None:
                raise
        finally:
            world.take_apart()
            logging.disable(logging.NOTSET)
            for file in self._folder.glob("store.db*"):
                file.unlink()
            gc.enable()
        figures = world.figures
        figures.digest = world.ledger.digest.hexdigest()[:16]
        figures.virtual_seconds = world.loop.time()
        figures.turns = world.loop.turns
        figures.commits = world.ledger.commits
        return Report(figures, violation)

    async def _make_template(self) -> None:
        store = await open_store(self._template, node="template", clock=lambda: START)
        await store.close()


async def _play(world: World) -> None:
    """Play until the time is over, or something happened that must not."""
    world.open()
    assert world.violation is not None
    playing = world.loop.create_task(_play_to_the_end(world))
    await asyncio.wait([playing, world.violation], return_when=asyncio.FIRST_COMPLETED)
    if world.violation.done():
        playing.cancel()
        await asyncio.wait([playing])
        await world.violation
    await playing


async def _play_to_the_end(world: World) -> None:
    for slot in range(world.random.choice((2, 2, 3)) if world.is_shared else 1):
        await world.boot(slot)
    acts = Acts(world)
    await acts.open()
    await acts.until(world.random.uniform(20, 60))
    await acts.heal()
    Verdict(world).pronounce()
    await asyncio.sleep(0)


@contextmanager
def _seeded_tokens(seed: int) -> Iterator[None]:
    """Let the engine's random names come from the seed."""
    source = random.Random(f"tokens {seed}")
    original = clock.token
    clock.token = lambda size=16: source.randbytes(size).hex()
    try:
        yield
    finally:
        clock.token = original
