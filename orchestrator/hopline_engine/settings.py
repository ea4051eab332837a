"""Settings of one installation, read once at the edge: arguments, then environment, then file, then defaults."""

import os
import tomllib
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hopline.errors import HoplineError
from hopline_engine.database_url import DatabaseUrlError, is_database_url, parse

PREFIX = "HOPLINE_"
PAYLOAD_MAX_BYTES: Final = 1_048_576


class SettingsError(HoplineError):
    """A setting has a value it cannot have."""


class Settings(BaseModel):
    """Everything an operator may set. Each field is also ``HOPLINE_<NAME>`` and a key of ``hopline.toml``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state_dir: Path = Path(".hopline")
    """Folder of the store, the signing key and the address of the running server."""
    store: str = Field(default="", repr=False)
    """Path of the SQLite file, or ``sqlite:///PATH``; empty for ``hopline.db`` in ``state_dir``. Or
    ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE``, which several servers may share."""
    host: str = "127.0.0.1"
    port: int = Field(default=8484, ge=0, le=65535)
    server_url: str | None = None
    """Server that the command line talks to; without it, the one that runs on ``state_dir``."""
    public_url: str | None = None
    """Base URL under which targets reach this server for callbacks; without it, the address it listens on."""
    api_token: str | None = Field(default=None, repr=False)
    """Bearer token of the API; needed to listen on more than this machine."""
    allowed_hosts: tuple[str, ...] = ()
    """Names accepted in the ``Host`` header besides those of this machine."""
    key: str | None = Field(default=None, repr=False)
    """Secret that signs callback tokens; without it, one is made, in ``state_dir`` or in the shared database."""
    secrets_dir: Path = Path("/run/secrets")
    """Folder whose files are secrets, each by its name; it need not be there."""
    secrets_key: tuple[str, ...] = Field(default=(), repr=False)
    """Keys of the secrets in the store, each 32 bytes in base64: the first encrypts, all decrypt."""
    secrets_key_file: Path | None = None
    """File with such keys, one in each line, after those of ``secrets_key``."""
    attempt_timeout_seconds: float = Field(default=600.0, gt=0)
    """For steps without ``timeout=``."""
    accepted_timeout_seconds: float = Field(default=86_400.0, gt=0)
    """How long a step without ``deadline=`` waits for its callback after a 202."""
    park_seconds: float = Field(default=60.0, gt=0)
    """How long a run only waits before it leaves memory, to come back when something happens to it."""
    approval_link_seconds: float = Field(default=604_800.0, gt=0)
    """How long a link to the page of an approval is good; ``hopline approvals show`` makes new ones."""
    event_retention_seconds: float = Field(default=2_592_000.0, gt=0)
    """How long events are kept: for so long, one is found by those who wait for it later, and a second one of the same
    key changes nothing."""
    run_retention_seconds: float = Field(default=7_776_000.0, gt=0)
    """How long runs are kept after their end, with their steps, attempts, logs, approvals, ticks and idempotency keys;
    ``inf`` keeps them for ever."""
    retry_after_cap_seconds: float = Field(default=3600.0, gt=0)
    """The longest ``Retry-After`` of a target that is believed."""
    result_max_bytes: int = Field(default=16_777_216, gt=0)
    """The largest result of a step. What stays in rows whatever it is, as what an event says, may have 1 MiB of it."""
    result_inline_bytes: int = Field(default=262_144, ge=1024)
    """The largest result that stays in its row; larger ones are kept in ``blobs``, and the row refers to them."""
    blobs: str = ""
    """Where large results are: a folder, or the URL of a bucket (``s3://BUCKET/PREFIX``, ``gs://...``, with
    ``hopline[s3]``). Empty for ``blobs`` beside the SQLite file; on Postgres, where all servers need the same
    place, all results stay in rows then."""
    lost_limit: int = Field(default=10, ge=1)
    """How many attempts of a step may be lost to dying processes before it fails."""
    map_window: int = Field(default=1000, ge=1)
    """How many items of one map are open at a time when the step sets no ``max_parallel``."""
    default_max_concurrent_dispatches: int = Field(default=1000, ge=1)
    """Limit of the queue ``default``."""
    worker_silence_seconds: float = Field(default=15.0, gt=0)
    """A worker that was silent for so long is taken for dead."""
    audit_seconds: float = Field(default=30.0, gt=0)
    """How often a running engine compares what it knows with what is stored, and repairs what is safe."""
    node_silence_seconds: float = Field(default=8.0, ge=1)
    """A node that was silent for so long is taken for dead by the others, and its runs are taken over."""
    node_url: str | None = None
    """Base URL under which other nodes and workers reach this one; without it, the address it listens on."""
    schedule_period_seconds: float = Field(default=10.0, ge=1)
    """The shortest time between two ticks that a schedule may have."""
    drain_seconds: float = Field(default=5.0, ge=0)
    """How long a stopping server waits for answers; what comes later is called again by the next one."""
    egress: Literal["open", "public"] = "open"
    """``public`` keeps HTTP steps away from private, loopback and metadata addresses."""
    allowed_targets: tuple[str, ...] = ()
    """``host``, ``host:port`` or networks that HTTP steps may call although ``egress`` is ``public``."""

    grpc_port: int | None = Field(default=None, ge=0, le=65535)
    """Port of the Cloud Tasks API over gRPC; without it there is REST only. Needs ``hopline[grpc]``."""
    create_queues: bool = False
    """Whether a Cloud Tasks client may create a task in a queue that nobody has made."""
    queue_name_hold_seconds: float = Field(default=0.0, ge=0)
    """How long the name of a deleted Cloud Tasks queue cannot be used again; 3 to 7 days at the original."""
    task_attempts_seconds: float = Field(default=604_800.0, ge=0)
    """How long attempts of Cloud Tasks tasks are kept; 0 keeps none."""
    app_engine_urls: tuple[str, ...] = ()
    """Where App Engine tasks go: ``URL``, or ``SERVICE=URL``, with ``VERSION.`` or ``INSTANCE.VERSION.`` before it."""
    oauth_access_token: str | None = Field(default=None, repr=False)
    """What tasks with an OAuth token carry."""

    @property
    def is_on_postgres(self) -> bool:
        """Whether the store is a Postgres database."""
        return is_database_url(self.store)

    @property
    def store_shown(self) -> str:
        """The store as it is shown to people: a path, or a URL without its password."""
        return parse(self.store).shown if self.is_on_postgres else str(self.store_path)

    @property
    def store_path(self) -> Path:
        """Path of the SQLite file, where it is one."""
        return Path(self.store.removeprefix("sqlite:///")) if self.store else self.state_dir / "hopline.db"

    @property
    def blobs_place(self) -> str | None:
        """The folder or URL of large results; ``None`` if all stay in rows."""
        return self.blobs or (None if self.is_on_postgres else str(self.store_path.parent / "blobs"))

    @property
    def payload_max_bytes(self) -> int:
        """The largest payload of an event, and form of an approval."""
        return min(self.result_max_bytes, PAYLOAD_MAX_BYTES)

    @classmethod
    def load(cls, **flags: object) -> "Settings":
        """Return the settings in force; a flag that is ``None`` was not given.

        Raises:
            SettingsError: a value is unknown or not possible; the message names where it came from.
        """
        values: dict[str, Any] = {**_from_file(), **_from_environment()}
        values.update({name: value for name, value in flags.items() if value is not None})
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(map(str, first["loc"]))
            raise SettingsError(
                f"setting {name!r}: {first['msg']}", hint=f"look at {PREFIX}{name.upper()} and hopline.toml"
            ) from None
        try:
            if settings.is_on_postgres:
                parse(settings.store)
        except DatabaseUrlError as error:
            raise SettingsError(f"setting 'store': {error}", hint=error.hint) from None
        return settings


def _from_environment() -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, field in Settings.model_fields.items():
        text = os.environ.get(PREFIX + name.upper())
        if text is not None:
            is_list = field.annotation == tuple[str, ...]
            values[name] = tuple(part.strip() for part in text.split(",") if part.strip()) if is_list else text
    return values


def _from_file() -> dict[str, Any]:
    for path, table in ((Path("hopline.toml"), ()), (Path("pyproject.toml"), ("tool", "hopline"))):
        if path.is_file():
            try:
                values: Any = tomllib.loads(path.read_text(encoding="utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise SettingsError(f"{path} is not valid TOML: {error}") from None
            for key in table:
                values = values.get(key, {})
            if values:
                return dict(values)
    return {}
