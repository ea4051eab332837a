"""Routes of events: something happened, and what happened."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from hopline_engine.api.asked import EventQuery, EventRequest
from hopline_engine.api.body import answer, read_body, read_model, takes
from hopline_engine.api.given import Engine
from hopline_engine.api.models import Emitted, Events

router = APIRouter(prefix="/events", tags=["events"])


class _RawEvent(msgspec.Struct):
    payload: msgspec.Raw = msgspec.Raw(b"null")


_decode_raw = msgspec.json.Decoder(_RawEvent).decode


@router.post("", response_model=Emitted, status_code=201, openapi_extra=takes(EventRequest))
async def emit_event(request: Request, engine: Engine) -> Response:
    """Keep an event, start the runs that it starts, and let steps that wait for it go on.

    200 instead of 201 when there was one of this name and key before; then nothing happens.
    """
    body = await read_body(request)
    asked = read_model(body, EventRequest)
    emitted = await engine.emit_event(asked.name, asked.key, bytes(_decode_raw(body).payload))
    return answer(emitted, 201 if emitted.created else 200)


@router.get("", response_model=Events)
async def list_events(query: Annotated[EventQuery, Query()], engine: Engine) -> Response:
    """List events, the newest first."""
    return answer(Events(events=await engine.events(query)))
