"""Routes of secrets: their names, never their values."""

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from hopline_engine.api.body import answer, read_body, read_model, takes
from hopline_engine.api.given import Engine
from hopline_engine.api.secret_models import MissingSecret, Rotated, Secret, SecretRequest, Secrets
from hopline_engine.scheduler.secret_book import KeptSecret

router = APIRouter(prefix="/secrets", tags=["secrets"])


@router.get("", response_model=Secrets)
async def list_secrets(engine: Engine) -> Response:
    """List the secrets in the store by name, and what workflows need that has no value."""
    kept = [_view(each) for each in await engine.secrets.all_kept()]
    missing = [MissingSecret(message=each.message, used_by=each.used_by) for each in await engine.secrets.missing()]
    return answer(Secrets(secrets=kept, missing=missing))


@router.post("", response_model=Secret, openapi_extra=takes(SecretRequest))
async def set_secret(request: Request, engine: Engine) -> Response:
    """Keep a secret, in place of the one of this name if there is one."""
    asked = read_model(await read_body(request), SecretRequest)
    return answer(_view(await engine.secrets.put(asked.name, asked.value)))


@router.post("/rotate", response_model=Rotated)
async def rotate_secrets(engine: Engine) -> Response:
    """Encrypt with the first key what another one encrypted."""
    return answer(Rotated(secrets=await engine.secrets.rotate()))


@router.delete("/{name}", response_model=Secret)
async def remove_secret(name: Annotated[str, Path(max_length=100)], engine: Engine) -> Response:
    """Forget a secret."""
    return answer(_view(await engine.secrets.remove(name)))


def _view(kept: KeptSecret) -> Secret:
    return Secret(**kept._asdict())
