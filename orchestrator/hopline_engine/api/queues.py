"""Routes of queues: what waits in them, pause and resume, limits."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from hopline_engine.api.asked import QueueLimits
from hopline_engine.api.body import answer, read_body, read_model, takes
from hopline_engine.api.given import Engine
from hopline_engine.api.models import Queue, Queues

router = APIRouter(prefix="/queues", tags=["queues"])


@router.get("", response_model=Queues)
async def list_queues(engine: Engine) -> Response:
    """List all queues."""
    return answer(Queues(queues=await engine.queues()))


@router.get("/{name}", response_model=Queue)
async def show_queue(name: str, engine: Engine) -> Response:
    """Show a queue."""
    return answer(await engine.queue(name))


@router.patch("/{name}", response_model=Queue, openapi_extra=takes(QueueLimits))
async def update_queue(name: str, request: Request, engine: Engine) -> Response:
    """Change limits of a queue; what is left out stays."""
    asked = read_model(await read_body(request), QueueLimits)
    return answer(await engine.update_queue(name, asked))


@router.post("/{name}/pause", response_model=Queue)
async def pause_queue(name: str, engine: Engine) -> Response:
    """Stop sending the tasks of a queue; what was sent goes on."""
    return answer(await engine.pause_queue(name))


@router.post("/{name}/resume", response_model=Queue)
async def resume_queue(name: str, engine: Engine) -> Response:
    """Send the tasks of a queue again."""
    return answer(await engine.resume_queue(name))
