"""Routes of runs: start, list, look into, follow, cancel, retry."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from hopline_engine.api.asked import LARGEST_NUMBER, ForkRequest, RetryRequest, RunQuery, RunRequest
from hopline_engine.api.body import answer, json_answer, read_body, read_model, takes
from hopline_engine.api.events import EventStream
from hopline_engine.api.given import Engine, HeldRun, RunId
from hopline_engine.api.models import Attempts, Output, Run, RunDetail, RunPage, Why

router = APIRouter(prefix="/runs", tags=["runs"])

_EVENTS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}
StepName = Annotated[str | None, Query(max_length=600)]


@router.post("", response_model=Run, status_code=201, openapi_extra=takes(RunRequest))
async def start_run(request: Request, engine: Engine) -> Response:
    """Start a run; 200 instead of 201 when the idempotency key already had one."""
    asked = read_model(await read_body(request), RunRequest)
    started = await engine.start_run(asked.workflow, asked.input, asked.idempotency_key, asked.priority)
    return answer(started.run, 201 if started.created else 200)


@router.get("", response_model=RunPage)
async def list_runs(query: Annotated[RunQuery, Query()], engine: Engine) -> Response:
    """List runs, newest first, without their inputs and results."""
    return answer(await engine.list_runs(query))


@router.get("/{ref}", response_model=RunDetail)
async def show_run(run: HeldRun, engine: Engine) -> Response:
    """Show a run with its steps. `ref` is an id, a unique prefix of one, `@last` or `@failed`."""
    return answer(await engine.run_detail(run))


@router.get("/{ref}/events", response_class=Response, responses=_EVENTS)
async def follow_run(run: HeldRun, engine: Engine) -> Response:
    """Follow a run: one `snapshot`, then `step` and `run` events until the run has ended."""
    return EventStream(engine.subscribe(run))


@router.get("/{ref}/logs", response_model=Attempts)
async def show_attempts(
    run: RunId,
    engine: Engine,
    step: StepName = None,
    attempt: Annotated[int | None, Query(ge=1, le=LARGEST_NUMBER)] = None,
) -> Response:
    """Show the attempts of a run, with what they printed and logged."""
    return answer(Attempts(attempts=await engine.run_attempts(run, step, attempt)))


@router.get("/{ref}/output", response_model=Output)
async def show_output(run: RunId, engine: Engine) -> Response:
    """Show what a run returned."""
    return json_answer(b'{"result":' + await engine.run_output(run) + b"}")


@router.get("/{ref}/why", response_model=Why)
async def explain_run(run: HeldRun, engine: Engine, step: StepName = None) -> Response:
    """Say why the steps of a run are not further."""
    return answer(await engine.why(run, step))


@router.post("/{ref}/cancel", response_model=Run)
async def cancel_run(run: HeldRun, engine: Engine) -> Response:
    """Cancel a run: no further attempt starts, and no late result changes anything."""
    return answer(await engine.cancel_run(run))


@router.post("/{ref}/pause", response_model=Run)
async def pause_run(run: HeldRun, engine: Engine) -> Response:
    """Let nothing more of a run start; what runs may finish."""
    return answer(await engine.pause_run(run))


@router.post("/{ref}/resume", response_model=Run)
async def resume_run(run: HeldRun, engine: Engine) -> Response:
    """Let a paused run go on."""
    return answer(await engine.resume_run(run))


@router.post("/{ref}/retry", response_model=Run, status_code=201, openapi_extra=takes(RetryRequest, required=False))
async def retry_run(run: RunId, request: Request, engine: Engine) -> Response:
    """Start a new run that keeps what succeeded in one that ended; the body may name elements to run again."""
    body = await read_body(request)
    asked = read_model(body, RetryRequest) if body else RetryRequest()
    return answer(await engine.retry_run(run, asked.items), 201)


@router.post("/{ref}/fork", response_model=Run, status_code=201, openapi_extra=takes(ForkRequest))
async def fork_run(run: RunId, request: Request, engine: Engine) -> Response:
    """Start a new run that makes a step and all that depends on it again, perhaps with other arguments."""
    asked = read_model(await read_body(request), ForkRequest)
    return answer(await engine.fork_run(run, asked.step, asked.input), 201)
