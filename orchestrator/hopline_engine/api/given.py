"""What routes are given besides the request: the engine, the settings, and the run that the path names."""

from typing import Annotated

from fastapi import Depends, Path
from starlette.requests import Request

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
"""Public id of the run that ``{ref}`` in the path names."""
