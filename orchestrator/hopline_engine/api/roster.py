"""Workers and nodes: as they announce themselves, as the engine keeps them, as people see them."""

from hopline_engine.api.asked import WorkerRegistration
from hopline_engine.api.fleet_models import Node, ServedFile, ServedStep, Worker
from hopline_engine.queue.workers import ServedFile as LiveFile
from hopline_engine.queue.workers import Worker as LiveWorker
from hopline_engine.queue.workers import routes_of
from hopline_engine.store.nodes import StoredNode


def live_worker(worker: str, registration: WorkerRegistration, now: float) -> LiveWorker:
    """Return a worker that announces itself now."""
    return LiveWorker(
        id=worker,
        url=registration.url,
        token=registration.token,
        concurrency=registration.concurrency,
        routes=routes_of((step.name, step.signature) for step in registration.steps),
        pid=registration.pid,
        host=registration.host,
        seen_at=now,
        files=tuple(LiveFile(file.path, file.sha256, tuple(file.workflows)) for file in registration.files),
        reloads=registration.reloads,
    )


def worker_view(worker: LiveWorker) -> Worker:
    """Return a worker without its token."""
    return Worker(
        id=worker.id,
        url=worker.url,
        pid=worker.pid,
        host=worker.host,
        concurrency=worker.concurrency,
        in_flight=worker.in_flight,
        steps=[ServedStep(name=route.step, signature=route.signature) for route in sorted(worker.routes)],
        files=[ServedFile(path=file.path, sha256=file.sha256, workflows=list(file.workflows)) for file in worker.files],
        reloads=worker.reloads,
        seen_at=worker.seen_at,
    )


def node_view(node: StoredNode) -> Node:
    """Return a node with how many shards it holds."""
    return Node(
        id=node.id,
        url=node.url,
        epoch=node.epoch,
        shards=len(node.shards),
        started_at=node.started_at,
        heartbeat_at=node.heartbeat_at,
    )
