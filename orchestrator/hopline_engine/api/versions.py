"""Versions of workflows that are kept, and what the runs that began with them still need of workers."""

from dataclasses import asdict

from fastapi import APIRouter
from starlette.responses import Response

from hopline_engine.api.body import answer
from hopline_engine.api.given import Engine
from hopline_engine.api.models import Time, View, WorkflowDetail

router = APIRouter(tags=["workflows"])


class WorkflowVersion(View):
    """One version of a workflow that is kept."""

    digest: str
    created_at: Time
    current: bool
    """Whether new runs use it."""
    live_runs: int


class WorkflowVersions(View):
    """All versions of a workflow that are kept, newest first."""

    versions: list[WorkflowVersion]


class NeededStep(View):
    """A step that some runs still have before them, in the version that they began with."""

    workflow: str
    digest: str
    step: str
    signature: str
    """What a worker that can execute it announces."""
    runs: int
    examples: list[str]
    """Some of these runs, oldest first."""


class Needs(View):
    """What workers have to serve until every run that is open now has ended."""

    needs: list[NeededStep]


@router.get("/workflows/{name}/versions", response_model=WorkflowVersions)
async def list_versions(name: str, engine: Engine) -> Response:
    """List the versions of a workflow, newest first."""
    versions = [
        WorkflowVersion(
            digest=found.digest, created_at=found.created_at, current=found.is_current, live_runs=found.live_runs
        )
        for found in await engine.versions(name)
    ]
    return answer(WorkflowVersions(versions=versions))


@router.get("/workflows/{name}/versions/{digest}", response_model=WorkflowDetail)
async def show_version(name: str, digest: str, engine: Engine) -> Response:
    """Show one version of a workflow with its definition; the beginning of its digest is enough."""
    return answer(await engine.version(name, digest))


@router.get("/needs", response_model=Needs)
async def list_needs(engine: Engine) -> Response:
    """List the steps that runs which are open now still have before them."""
    return answer(Needs(needs=[NeededStep(**asdict(need)) for need in await engine.needs()]))
