"""A file that the server's own worker serves already, as under ``hopline dev``: then no second worker is started.

A second one would have the file as it is now and keep it so: after a change, half of the attempts would still run what
was there before.
"""

import asyncio
import hashlib
import os
import socket
from pathlib import Path
from typing import Any

from hopline_cli.client import Api
from hopline_engine import clock

RELOAD_SECONDS = 3.0
"""How long a worker that follows the changes of its files may be behind."""
LOOK_AGAIN_SECONDS = 0.1


async def workflows_served(api: Api, file: str) -> list[str] | None:
    """Return the workflows of *file* as a worker that follows its changes serves it now; ``None`` if none does."""
    give_up_at = clock.monotonic() + RELOAD_SECONDS
    while (content := _digest(file)) is not None:
        following = _following(await api.get("/workers"), file)
        for served in following:
            if served["sha256"] == content:
                workflows: list[str] = served["workflows"]
                return workflows
        # It may be about to load the file again; when that fails, a worker of our own tells what is wrong with it.
        if not following or clock.monotonic() > give_up_at:
            return None
        await asyncio.sleep(LOOK_AGAIN_SECONDS)
    return None


def _digest(file: str) -> str | None:
    """Return what tells one content of a file from another; ``None`` for a folder, or when there is no such file."""
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:
        return None


def _following(answer: Any, file: str) -> list[Any]:
    return [
        served
        for worker in answer["workers"]
        if worker["reloads"] and worker["host"] == socket.gethostname()
        for served in worker["files"]
        if os.path.realpath(served["path"]) == os.path.realpath(file)
    ]
