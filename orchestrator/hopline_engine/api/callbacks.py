"""The route by which a target that answered 202 reports how its work ended.

It is open to whoever has the token of the attempt, so it says nothing to anybody else.
"""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from hopline_engine.api.asked import LARGEST_NUMBER, CallbackReport
from hopline_engine.api.body import answer, read_body, read_model, takes
from hopline_engine.api.errors import error_response
from hopline_engine.api.forwarding import RunElsewhere
from hopline_engine.api.given import Configured, Engine
from hopline_engine.api.interface import StepFailure, StepHeartbeat, StepResult
from hopline_engine.api.models import CallbackDone, HeartbeatDone
from hopline_engine.scheduler.callbacks import CallbackAnswer, CallbackOutcome

router = APIRouter(prefix="/callbacks", tags=["callbacks"])

TOKEN_HEADER = "hopline-callback-token"  # noqa: S105 - the name of a header
_ENVELOPE = 4096
"""Bytes that a report may have besides the result."""
_REFUSALS = {
    CallbackOutcome.STALE: (409, "attempt-superseded", "the step is past this attempt; the report is not used"),
    CallbackOutcome.ENDED: (410, "run-ended", "the run has ended; the report is not used"),
    CallbackOutcome.UNKNOWN: (503, "attempt-unknown", "the attempt is not known to wait for a report; try again"),
    CallbackOutcome.FORGED: (401, "bad-callback-token", "the token is not that of this attempt"),
    CallbackOutcome.INVALID: (422, "invalid-result", "the result does not fit the step; it keeps waiting"),
}


class _RawReport(msgspec.Struct):
    result: msgspec.Raw


_decode_raw = msgspec.json.Decoder(_RawReport).decode


@router.post(
    "/{run}/{attempt}/{step}", response_model=CallbackDone | HeartbeatDone, openapi_extra=takes(CallbackReport)
)
async def report(
    run: Annotated[str, Path(max_length=64)],
    attempt: Annotated[int, Path(ge=1, le=LARGEST_NUMBER)],
    step: Annotated[str, Path(max_length=600)],
    request: Request,
    engine: Engine,
    settings: Configured,
) -> Response:
    """Report the result or the failure of an attempt, or with a heartbeat that it goes on.

    200 is final, also when it is repeated; so are 409 (a newer attempt counts) and 410 (the run has ended). After
    422 the step keeps waiting for a valid report. 503 means: try again.
    """
    token = _token(request)
    if not token:
        return _answer(CallbackAnswer(CallbackOutcome.FORGED, f"a report needs the header {TOKEN_HEADER}"))
    limit = settings.result_max_bytes + _ENVELOPE
    if (url := await engine.holder(run)) is not None:
        raise RunElsewhere(run, url, limit)
    body = await read_body(request, limit)
    return _answer(await engine.callback(run, step, attempt, token, _outcome_of(body)))


def _token(request: Request) -> str:
    token = request.headers.get(TOKEN_HEADER, "")
    if token:
        return token
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def _outcome_of(body: bytes) -> StepResult | StepFailure | StepHeartbeat:
    reported = read_model(body, CallbackReport)
    if reported.heartbeat is not None:
        return StepHeartbeat(seconds=reported.heartbeat, progress=reported.progress)
    if reported.error is not None:
        return StepFailure(type=reported.error.type, message=reported.error.message)
    return StepResult(body=bytes(_decode_raw(body).result))


def _answer(result: CallbackAnswer) -> Response:
    match result.outcome:
        case CallbackOutcome.APPLIED:
            done = CallbackDone(outcome="applied")
            return answer(done if result.until is None else HeartbeatDone(until=result.until))
        case CallbackOutcome.ALREADY:
            return answer(CallbackDone(outcome="already"))
        case refused:
            status, code, message = _REFUSALS[refused]
            return error_response(status, code, result.message or message)
