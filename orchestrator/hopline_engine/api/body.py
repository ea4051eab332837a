"""JSON bodies, in and out.

Requests are read here and not by FastAPI: with a cap that also holds for bodies of unknown length, and by the strict
reader, so that what is let in can be stored. Answers are written straight from their models.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from hopline_engine.api.errors import (
    BodyTooLargeError,
    InvalidJsonError,
    InvalidRequestError,
    SlowBodyError,
    problems_of,
)
from hopline_engine.core.strict_json import StrictJsonError, parse

BODY_LIMIT = 1_048_576
"""Bytes of a body, where a route does not say otherwise."""
BODY_OVERRUN = 16_777_216
"""Bytes over the limit that are read and thrown away: a client that is still sending would not see the refusal."""
BODY_SECONDS = 30.0
"""How long a body may take to arrive."""

Model = TypeVar("Model", bound=BaseModel)


def takes(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """Return how OpenAPI says that a route takes a body; the application adds the schema of the model."""
    reference = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": reference}}}}


async def read_body(request: Request, limit: int = BODY_LIMIT) -> bytes:
    """Return the body of *request*.

    Raises:
        BodyTooLargeError: it has more than *limit* bytes.
        SlowBodyError: it did not arrive in time.
    """
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read(request, limit)
    except TimeoutError:
        raise _too_slow() from None


async def limited_body(request: Request, limit: int) -> AsyncGenerator[bytes, None]:
    """Yield the body of *request* as it arrives.

    Raises:
        BodyTooLargeError: it has more than *limit* bytes.
        SlowBodyError: it did not arrive in time.
    """
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limit:
                    yield chunk
                elif size > limit + BODY_OVERRUN:
                    break
    except TimeoutError:
        raise _too_slow() from None
    if size > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> BodyTooLargeError:
    hint = "keep large values in files, buckets or results of steps, and send where they are"
    return BodyTooLargeError(f"the body has more than {limit} bytes", hint=hint)


def _too_slow() -> SlowBodyError:
    return SlowBodyError(f"the body did not arrive within {BODY_SECONDS:.0f} s")


async def _read(request: Request, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        elif size > limit + BODY_OVERRUN:
            break
    if size > limit:
        raise _too_large(limit)
    return b"".join(chunks)


def read_model(body: bytes, model: type[Model]) -> Model:
    """Return what *body* asks for.

    Raises:
        InvalidJsonError: it is not JSON that can be stored.
        InvalidRequestError: it does not have the shape of *model*.
    """
    try:
        value = parse(body)
    except StrictJsonError as error:
        raise InvalidJsonError(f"the body is not JSON that can be stored: {error}") from None
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidRequestError(problems_of(error.errors(include_url=False, include_context=False))) from None


def answer(view: BaseModel, status: int = 200) -> Response:
    """Return an answer that shows *view*."""
    return json_answer(to_json(view), status)


def json_answer(body: bytes, status: int = 200) -> Response:
    """Return an answer with a body that is JSON already."""
    return Response(body, status, media_type="application/json")
