"""Routes of approvals: what people are asked, and their answers; as JSON, and as a page behind a link.

The page needs no token of the API but a link that was signed here: it is open to whoever was given that, for one
decision. It works without scripts and loads nothing from elsewhere.
"""

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from hopline_engine.api import approval_page
from hopline_engine.api.asked import ApprovalAnswer, ApprovalQuery
from hopline_engine.api.body import BODY_LIMIT, answer, read_body, read_model, takes
from hopline_engine.api.errors import InvalidRequestError
from hopline_engine.api.forwarding import RunElsewhere
from hopline_engine.api.given import Engine
from hopline_engine.api.interface import EngineService, LinkState
from hopline_engine.api.models import ApprovalDetail, ApprovalList
from hopline_engine.errors import ApprovalNotOpenError, InvalidApprovalError, NotFoundError

router = APIRouter(prefix="/approvals", tags=["approvals"])

MOST_FIELDS = 1000

RunPart = Annotated[str, Path(max_length=64)]
StepPart = Annotated[str, Path(max_length=600)]
Expires = Annotated[int, Query(ge=0, le=2**53)]
Signature = Annotated[str, Query(max_length=200)]


@router.get("", response_model=ApprovalList)
async def list_approvals(query: Annotated[ApprovalQuery, Query()], engine: Engine) -> Response:
    """List what people are asked, the newest first."""
    return answer(ApprovalList(approvals=await engine.approvals(query)))


@router.get("/{run}/{step}", response_model=ApprovalDetail)
async def show_approval(run: RunPart, step: StepPart, engine: Engine) -> Response:
    """Show what a step asks, with the link to the page on which it is decided."""
    run = await _here(run, engine)
    return answer(await engine.approval(run, step))


@router.post("/{run}/{step}", response_model=ApprovalDetail, openapi_extra=takes(ApprovalAnswer))
async def decide_approval(run: RunPart, step: StepPart, request: Request, engine: Engine) -> Response:
    """Approve or reject; kept with the name of who decided."""
    run = await _here(run, engine, BODY_LIMIT)
    asked = read_model(await read_body(request), ApprovalAnswer)
    return answer(await engine.decide_approval(run, step, asked))


@router.get("/{run}/{step}/page", response_class=Response)
async def show_page(run: RunPart, step: StepPart, expires: Expires, signature: Signature, engine: Engine) -> Response:
    """Show the page on which a person decides."""
    if (refusal := _refused(engine, run, step, expires, signature)) is not None:
        return refusal
    await _here(run, engine)
    return await _page(engine, run, step)


@router.post("/{run}/{step}/page", response_class=Response)
async def take_page(
    run: RunPart, step: StepPart, expires: Expires, signature: Signature, request: Request, engine: Engine
) -> Response:
    """Take what a person decided on the page."""
    if (refusal := _refused(engine, run, step, expires, signature)) is not None:
        return refusal
    await _here(run, engine, BODY_LIMIT)
    given = _filled_in(await read_body(request))
    try:
        detail = await engine.approval(run, step)
        await engine.decide_approval(run, step, approval_page.answer_in(given, detail.form_schema))
    except InvalidApprovalError as error:
        return await _page(engine, run, step, given, error.problems, 422)
    except ApprovalNotOpenError:
        return await _page(engine, run, step, status=409)
    return await _page(engine, run, step)


def _filled_in(body: bytes) -> dict[str, list[str]]:
    """Return what was sent from a page."""
    try:
        return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise InvalidRequestError(f"the form has more than {MOST_FIELDS} fields") from None


async def _here(run: str, engine: EngineService, body_limit: int = 0) -> str:
    """Return the id of a run that this node can answer for."""
    public = await engine.resolve_run(run)
    if (url := await engine.holder(public)) is not None:
        raise RunElsewhere(public, url, body_limit)
    return public


def _refused(engine: EngineService, run: str, step: str, expires: int, signature: str) -> Response | None:
    match engine.approval_link_state(run, step, expires, signature):
        case LinkState.FORGED:
            return approval_page.notice("This link is not known here", "Ask for the link again.", 403)
        case LinkState.EXPIRED:
            return approval_page.notice("This link has expired", "Ask for a new one.", 410)
        case LinkState.GOOD:
            return None


async def _page(
    engine: EngineService,
    run: str,
    step: str,
    given: dict[str, list[str]] | None = None,
    problems: tuple[str, ...] = (),
    status: int = 200,
) -> Response:
    try:
        detail = await engine.approval(run, step)
    except (ApprovalNotOpenError, NotFoundError):
        return approval_page.notice("There is nothing to decide", "The step asks for no decision.", 404)
    return approval_page.page(detail, given or {}, problems, status)
