"""What a planted defect is, and the rooms of the engine in which there are some."""

from typing import Final, NamedTuple

CORE: Final = "hopline_engine.core."
QUEUE: Final = "hopline_engine.queue."
SCHEDULER: Final = "hopline_engine.scheduler."
STORE: Final = "hopline_engine.store."


class Defect(NamedTuple):
    """One text of one module in place of another."""

    name: str
    module: str
    old: str
    new: str
