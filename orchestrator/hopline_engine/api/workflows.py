"""Routes of workflows and of the definitions behind them."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from hopline_engine.api.asked import DefinitionsRequest
from hopline_engine.api.body import answer, read_body, read_model, takes
from hopline_engine.api.given import Engine
from hopline_engine.api.models import Registered, WorkflowDetail, Workflows

router = APIRouter(tags=["workflows"])

DEFINITIONS_LIMIT = 10_485_760
"""A worker sends the definitions of all its files at once."""


@router.post("/definitions", response_model=Registered, openapi_extra=takes(DefinitionsRequest))
async def register_definitions(request: Request, engine: Engine) -> Response:
    """Store definitions, and make some of them the newest versions of their workflows."""
    asked = read_model(await read_body(request, DEFINITIONS_LIMIT), DefinitionsRequest)
    notes = await engine.register_definitions(asked.definitions, asked.current, schedules=asked.schedules)
    return answer(Registered(definitions=len(asked.definitions), notes=notes))


@router.get("/workflows", response_model=Workflows)
async def list_workflows(engine: Engine) -> Response:
    """List the newest version of every workflow."""
    return answer(Workflows(workflows=await engine.workflows()))


@router.get("/workflows/{name}", response_model=WorkflowDetail)
async def show_workflow(name: str, engine: Engine) -> Response:
    """Show the newest version of a workflow with its definition."""
    return answer(await engine.workflow(name))
