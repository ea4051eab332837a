"""One worker process from start to end: load, listen, register, serve, drain."""

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from hopline import Step
from hopline_engine import clock, event_loop
from hopline_engine.listening import listen
from hopline_engine.worker import capture
from hopline_engine.worker.app import WorkerApp
from hopline_engine.worker.beating import Nodes
from hopline_engine.worker.client import Announcement, RegistrationRefusedError, Terms
from hopline_engine.worker.execute import Runtime, Served
from hopline_engine.worker.leasing import Leased, PullQueue
from hopline_engine.worker.loader import Loaded, load
from hopline_engine.worker.options import Options
from hopline_engine.worker.parent import Report, Stop, say, serving, take_stdin
from hopline_engine.worker.problems import LoadError
from hopline_engine.worker.pulling import Feed, Pull, unknown_steps
from hopline_engine.worker.registration import Registration
from hopline_engine.worker.server import Server

SWITCH_SECONDS = 0.0005
"""How long a thread that computes may keep the loop from answering: a tenth of Python's default."""
FAREWELL_SECONDS = 1.0
EXIT_SECONDS = 2.0
"""How long threads that users started may keep the process from ending."""


def serve(options: Options) -> int:
    """Run a worker until it is told to stop; return the exit status: 0, or 1 when it could not start."""
    report = Report(options.report_fd)
    pipe = take_stdin() if options.exit_with_parent else None
    os.dup2(2, 1)  # stdout may be the data of the command that started this worker
    sys.setswitchinterval(SWITCH_SECONDS)
    with capture.routed(echo=options.verbose):
        loaded = load(options.paths)
        loaded.errors += unknown_steps(options.pulls, loaded.steps)
        with capture.logged():
            errors = loaded.errors or event_loop.run(_Worker(options, loaded, report).run(pipe))
    report.failed(errors)
    _end_within(EXIT_SECONDS, status := 1 if errors else 0)
    return status


class _Worker:
    """What one process serves, and as whom."""

    def __init__(self, options: Options, loaded: Loaded, report: Report) -> None:
        self._options = options
        self._loaded = loaded
        self._report = report
        self._id = f"w_{clock.token(6)}"
        self._token = clock.token(24)
        self._is_told = False

    async def run(self, pipe: int | None) -> list[LoadError]:
        """Serve until told to stop; return what kept it from starting."""
        stop = Stop()
        stop.listen(asyncio.get_running_loop(), pipe)
        try:
            listener = listen(self._options.host, self._options.port)
        except OSError as error:
            return [LoadError(code="cannot-listen", message=f"cannot listen on {self._options.host}: {error}")]
        app = WorkerApp(
            Served.every(self._loaded.steps),
            token=self._token,
            concurrency=self._options.concurrency,
            runtime=partial(Runtime, line=Nodes(lambda: registration.addresses)),
        )
        server = Server(app)
        serving = asyncio.create_task(server.serve([listener]))
        registration = Registration(
            self._options.server,
            os.environ.get("HOPLINE_API_TOKEN"),
            self._announcement(listener),
            clock.SystemClock(),
            lambda terms: self._on_registered(app, terms),
        )
        feeds = [asyncio.create_task(feed.keep()) for feed in self._feeds(app, registration)]
        try:
            return await self._stay(registration, app, stop, feeds)
        finally:
            server.stop()
            await serving

    async def _stay(
        self, registration: Registration, app: WorkerApp, stop: Stop, feeds: list[asyncio.Task[None]]
    ) -> list[LoadError]:
        keeping = asyncio.create_task(registration.keep())
        await _first_of(keeping, asyncio.create_task(stop.asked.wait()))
        if not stop.asked.is_set():
            try:
                await keeping  # it has ended, which it does by an error only
            except RegistrationRefusedError as refusal:
                return [LoadError(code=refusal.code, message=refusal.message, hint=refusal.hint)]
        for task in (keeping, *feeds):
            task.cancel()
        await asyncio.wait({keeping, *feeds})
        await self._leave(registration, app, stop)
        _end_within(EXIT_SECONDS, 0)  # closing the loop waits for threads that async steps have started
        return []

    async def _leave(self, registration: Registration, app: WorkerApp, stop: Stop) -> None:
        draining = asyncio.create_task(app.drain(self._options.grace_seconds))
        # Also when registering was never answered: the engine may have done it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await registration.unregister()
        await _first_of(draining, asyncio.create_task(stop.insisted.wait()))
        if not draining.done() or not draining.result():
            say("stopped with steps still running; the server tries them again")
            # Without closing anything in order: that would answer those steps with an error, as if they had failed.
            os._exit(0)

    def _feeds(self, app: WorkerApp, registration: Registration) -> list[Feed]:
        """Return what feeds this worker from pull queues."""
        steps = self._loaded.steps
        return [
            Feed(
                PullQueue(pull.queue, lambda: registration.addresses, os.environ.get("HOPLINE_API_TOKEN")),
                partial(_step_for, steps, pull.step),
                app,
                lease_seconds=self._options.lease_seconds,
                echoes=self._options.verbose,
                random=clock.SystemClock().random,
            )
            for pull in map(Pull.parse, self._options.pulls)
        ]

    def _announcement(self, listener: socket.socket) -> Announcement:
        steps = [{"name": step.name, "signature": step.signature} for step in self._loaded.steps.values()]
        description = {
            "url": _url(listener, self._options.server),
            "token": self._token,
            "concurrency": self._options.concurrency,
            "steps": steps,
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "files": self._files(),
            "reloads": self._options.reloads,
        }
        return Announcement.of(
            self._id,
            self._loaded.definitions(),
            list(self._loaded.workflows),
            description,
            schedules=not self._options.no_schedules,
        )

    def _files(self) -> list[dict[str, Any]]:
        workflows: dict[str, list[str]] = {path: [] for path in self._loaded.files}
        for name, found in self._loaded.workflows.items():
            if found.file in workflows:
                workflows[found.file].append(name)
        return [
            {"path": path, "sha256": self._loaded.files[path], "workflows": names} for path, names in workflows.items()
        ]

    def _on_registered(self, app: WorkerApp, terms: Terms) -> None:
        if terms.result_max_bytes is not None:
            app.limit_results(terms.result_max_bytes)
        workflows = [
            {"name": name, "digest": one.definition.digest, "file": one.file, "steps": len(one.definition.nodes)}
            for name, one in self._loaded.workflows.items()
        ]
        self._report.send({"ok": True, "workflows": workflows, "worker": self._id})
        is_alone = self._options.report_fd is None and not self._options.exit_with_parent
        if is_alone and not self._is_told:
            say(serving(workflows, self._options.server))
        self._is_told = True


def _step_for(steps: "Mapping[str, Step[..., Any]]", name: str | None, task: Leased) -> "Step[..., Any] | None":
    return steps.get(name or task.tag)


def _url(listener: socket.socket, server: str) -> str:
    """Return the URL under which the engine at *server* reaches *listener*."""
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        host = _address_towards(server, listener.family)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _address_towards(server: str, family: int) -> str:
    target = urlsplit(server)
    with socket.socket(family, socket.SOCK_DGRAM) as probe:  # connecting a datagram socket sends nothing
        probe.connect((target.hostname, target.port or 80))
        address: str = probe.getsockname()[0]
        return address


async def _first_of(*tasks: asyncio.Task[Any]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    tasks[-1].cancel()


def _end_within(seconds: float, status: int) -> None:
    timer = threading.Timer(seconds, os._exit, (status,))
    timer.daemon = True
    timer.start()
