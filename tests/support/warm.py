"""What the process that is copied has imported; see ``copies``."""

import gc
from contextlib import suppress
from importlib import import_module
from typing import Final

WARM: Final = (
    "hopline_cli.main",
    "hopline_cli.commands.serve",
    "hopline_engine.bootstrap",
    "hopline_engine.worker.serve",
    "alembic.command",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.loops.uvloop",
    "tests.crash.forked",
    "tests.crash.flow",
)

for module in WARM:
    with suppress(ImportError):  # uvloop need not be installed
        import_module(module)
gc.collect()
gc.freeze()  # a copy that looks for garbage would write to all of this, and memory that is written has to be copied
