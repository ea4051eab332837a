"""All tables together, those of the engine and those of the queue service: what the migrations lead to."""

from typing import Final

from hopline_engine.store import cloud_tables, tables
from hopline_engine.store.columns import Row

METADATA: Final = Row.metadata
_DESCRIBED_IN: Final = (tables, cloud_tables)  # to load them is what fills it
