"""What routes are given besides the request: the engine, the settings, and the run that the path names."""

from typing import Annotated

from fastapi import Depends, Path
from starlette.requests import Request

from hopline_engine.api.forwarding import RunElsewhere
from hopline_engine.api.interface import EngineService
from hopline_engine.settings import Settings


async def _engine(request: Request) -> EngineService:
    engine: EngineService = request.app.state.engine
    return engine


Engine = Annotated[EngineService, Depends(_engine)]


async def _settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


Configured = Annotated[Settings, Depends(_settings)]


async def _run(ref: Annotated[str, Path(max_length=64)], engine: Engine) -> str:
    return await engine.resolve_run(ref)


RunId = Annotated[str, Depends(_run)]
"""Public id of the run that ``{ref}`` in the path names. For what rows say, which any node can read."""


async def _held_run(run: RunId, engine: Engine) -> str:
    url = await engine.holder(run)
    if url is not None:
        raise RunElsewhere(run, url)
    return run


HeldRun = Annotated[str, Depends(_held_run)]
"""As ``RunId``, where the node that works on the run has to answer: the request goes on to it."""
