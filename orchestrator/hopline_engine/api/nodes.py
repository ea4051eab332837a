"""Route of the nodes that share the work."""

from fastapi import APIRouter
from starlette.responses import Response

from hopline_engine.api.body import answer
from hopline_engine.api.fleet_models import Nodes
from hopline_engine.api.given import Engine

router = APIRouter(prefix="/nodes", tags=["nodes"])


@router.get("", response_model=Nodes)
async def list_nodes(engine: Engine) -> Response:
    """List the nodes, by id."""
    return answer(Nodes(nodes=await engine.nodes()))
