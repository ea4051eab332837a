"""Route of the doctor: how the installation is, and what is wrong with it."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from hopline_engine.api.body import answer
from hopline_engine.api.given import Engine
from hopline_engine.api.models import Check, Doctor
from hopline_engine.scheduler.diagnosis import Diagnosis, State

router = APIRouter(prefix="/doctor", tags=["health"])


@router.get("", response_model=Doctor)
async def examine(request: Request, engine: Engine) -> Response:
    """Look for all that is wrong; goes through the store for some seconds where it is large."""
    return answer(doctor_view(await engine.diagnose(), request.app.version))


def doctor_view(diagnosis: Diagnosis, version: str) -> Doctor:
    """Return what was found as the API shows it."""
    return Doctor(
        version=version,
        at=diagnosis.at,
        ok=all(check.state is not State.WRONG for check in diagnosis.checks),
        checks=[
            Check(
                name=check.name,
                state=check.state.value,
                text=check.text,
                hint=check.hint,
                evidence=[dict(each) for each in check.evidence],
                is_audit=check.is_audit,
            )
            for check in diagnosis.checks
        ],
        healed=diagnosis.healed,
    )
