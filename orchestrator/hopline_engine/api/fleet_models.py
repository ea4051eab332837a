"""What the API says of those who do the work: workers, and the nodes that share it."""

from typing import Annotated

from pydantic import ConfigDict, Field

from hopline_engine.api.models import Time, View


class ServedStep(View):
    """A step that a worker serves, in the version that the signature names."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=500)
    signature: str = Field(min_length=1, max_length=64)


class ServedFile(View):
    """A file of workflows as a worker has loaded it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    path: str = Field(min_length=1, max_length=4096)
    """Absolute, on the worker's host."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    workflows: list[Annotated[str, Field(max_length=500)]]


class Worker(View):
    """A worker that the engine may call."""

    id: str
    url: str
    pid: int | None
    host: str | None
    concurrency: int
    in_flight: int
    steps: list[ServedStep]
    files: list[ServedFile]
    reloads: bool
    """Whether another worker takes its place when its files change, as under ``hopline dev``."""
    seen_at: Time


class NodeAddress(View):
    """Where a node is reached."""

    id: str
    url: str


class WorkerTerms(View):
    """What a node tells a worker each time that it shows it is alive."""

    node: str
    """Id of the node that answers."""
    nodes: list[NodeAddress]
    """All nodes, also this one: a worker registers with each, and divides its concurrency among them."""
    result_max_bytes: int
    """Larger results are refused."""


class RegisteredWorker(Worker, WorkerTerms):
    """A worker as it was registered, and what it has to know."""


class Node(View):
    """A process that works on a part of the runs."""

    id: str
    """Random for each start."""
    url: str | None
    """Where it is reached; null until it listens."""
    epoch: int
    """Greater than that of every node that was started before."""
    shards: int
    """How many of the 64 parts of the runs it works on."""
    started_at: Time
    heartbeat_at: Time
    """When it last showed that it is alive."""


class Nodes(View):
    """All nodes, by id."""

    nodes: list[Node]


class Workers(View):
    """All workers that are there now."""

    workers: list[Worker]
