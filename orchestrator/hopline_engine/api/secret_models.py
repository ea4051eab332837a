"""Secrets as the API shows and takes them; no answer has a value."""

from pydantic import Field

from hopline_engine.api.asked import Asked
from hopline_engine.api.models import Time, View

NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,99}$"


class SecretRequest(Asked):
    """Keep a secret."""

    name: str = Field(pattern=NAME)
    value: str = Field(repr=False)


class Secret(View):
    """A secret that the store keeps."""

    name: str
    created_at: Time
    updated_at: Time
    used_by: list[str]
    """Workflows whose newest version names it."""


class MissingSecret(View):
    """A secret that workflows need, and that has no value where this engine runs."""

    message: str
    used_by: list[str]


class Secrets(View):
    """All secrets in the store."""

    secrets: list[Secret]
    missing: list[MissingSecret]


class Rotated(View):
    """Secrets were encrypted with the first key."""

    secrets: int
    """How many another key had encrypted."""
