"""Routes of schedules: made, changed, paused, triggered, and back-filled."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from hopline_engine.api.asked import Text
from hopline_engine.api.body import answer, read_body, read_model, takes
from hopline_engine.api.given import Engine
from hopline_engine.api.models import Run
from hopline_engine.api.schedule_models import (
    BackfillRequest,
    NextTicks,
    PlannedBackfill,
    Schedule,
    ScheduleChange,
    ScheduleDetail,
    SchedulePage,
    ScheduleRequest,
)

router = APIRouter(prefix="/schedules", tags=["schedules"])

Name = Annotated[Text, Path()]


@router.get("", response_model=SchedulePage)
async def list_schedules(
    engine: Engine,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    after: Annotated[Text | None, Query()] = None,
) -> Response:
    """List schedules by name."""
    return answer(await engine.schedules.page(limit, after))


@router.post("", response_model=Schedule, status_code=201, openapi_extra=takes(ScheduleRequest))
async def create_schedule(request: Request, engine: Engine) -> Response:
    """Make a schedule for a workflow."""
    return answer(await engine.schedules.create(read_model(await read_body(request), ScheduleRequest)), 201)


@router.get("/{name}", response_model=ScheduleDetail)
async def show_schedule(name: Name, engine: Engine) -> Response:
    """Show a schedule with what became of its last ticks."""
    return answer(await engine.schedules.show(name))


@router.patch("/{name}", response_model=Schedule, openapi_extra=takes(ScheduleChange))
async def update_schedule(name: Name, request: Request, engine: Engine) -> Response:
    """Change a schedule by hand; it stays so when its workflow's file is registered again."""
    return answer(await engine.schedules.update(name, read_model(await read_body(request), ScheduleChange)))


@router.delete("/{name}", response_model=Schedule)
async def delete_schedule(name: Name, engine: Engine) -> Response:
    """Remove a schedule; its runs stay."""
    return answer(await engine.schedules.delete(name))


@router.get("/{name}/next", response_model=NextTicks)
async def next_ticks(name: Name, engine: Engine, count: Annotated[int, Query(ge=1, le=1000)] = 10) -> Response:
    """Show the ticks that come next."""
    return answer(await engine.schedules.next(name, count))


@router.post("/{name}/reset", response_model=Schedule)
async def reset_schedule(name: Name, engine: Engine) -> Response:
    """Put in force again what the workflow's file says."""
    return answer(await engine.schedules.reset(name))


@router.post("/{name}/pause", response_model=Schedule)
async def pause_schedule(name: Name, engine: Engine) -> Response:
    """Let a schedule fire no more; runs that were started go on."""
    return answer(await engine.schedules.pause(name, paused=True))


@router.post("/{name}/resume", response_model=Schedule)
async def resume_schedule(name: Name, engine: Engine) -> Response:
    """Let a schedule fire again, from now on."""
    return answer(await engine.schedules.pause(name, paused=False))


@router.post("/{name}/trigger", response_model=Run, status_code=201)
async def trigger_schedule(name: Name, engine: Engine) -> Response:
    """Start a run now, beside the ticks."""
    return answer(await engine.schedules.trigger(name), 201)


@router.post("/{name}/backfill", response_model=PlannedBackfill, openapi_extra=takes(BackfillRequest))
async def backfill_schedule(name: Name, request: Request, engine: Engine) -> Response:
    """Make up for the ticks of a time that have no run, or only tell which there are."""
    return answer(await engine.schedules.backfill(name, read_model(await read_body(request), BackfillRequest)))


@router.post("/{name}/backfill/pause", response_model=ScheduleDetail)
async def pause_backfill(name: Name, engine: Engine) -> Response:
    """Let a back-fill start nothing more for now."""
    return answer(await engine.schedules.pause_backfill(name, paused=True))


@router.post("/{name}/backfill/resume", response_model=ScheduleDetail)
async def resume_backfill(name: Name, engine: Engine) -> Response:
    """Let a back-fill go on."""
    return answer(await engine.schedules.pause_backfill(name, paused=False))


@router.post("/{name}/backfill/cancel", response_model=ScheduleDetail)
async def cancel_backfill(name: Name, engine: Engine) -> Response:
    """Give up the ticks of a back-fill that have no run yet."""
    return answer(await engine.schedules.cancel_backfill(name))
