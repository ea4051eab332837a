"""A server that speaks the engine's API on a real socket, from state that a test sets; no engine behind it.

It stands in for the engine where a test is about the command line alone: what it sends, shows and exits with.
"""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

Json = dict[str, Any]
T0 = "2026-11-20T02:00:00.000Z"


def a_step(name: str, state: str = "succeeded", **fields: Any) -> Any:
    step: Json = {
        "id": name, "kind": "python", "state": state, "attempts": 0, "items": None, "reused": False, "started_at": None,
        "ended_at": None, "upstream": [], "level": 0, "error": None, "next_at": None, "note": None, "bars": [],
        "runs": [],
    }  # fmt: skip
    return step | fields


def a_bar(begin: float, end: float | None, state: str = "succeeded", attempt: int = 1) -> Any:
    return {"attempt": attempt, "state": state, "started_at": at(begin), "ended_at": None if end is None else at(end)}


def at(seconds: float) -> str:
    """The time *seconds* after ``T0``, below a minute."""
    return f"2026-11-20T02:00:{seconds:06.3f}Z"


def a_run(run_id: str = "r_7h2kq9m3xa", state: str = "succeeded", *steps: Json, **fields: Any) -> Any:
    done = sum(step["state"] in {"succeeded", "failed", "skipped"} for step in steps)
    run: Json = {
        "id": run_id, "workflow": "daily_etl", "digest": "d" * 64, "state": state, "input": {}, "result": None,
        "error": None, "idempotency_key": None, "retry_of": None, "fork_of": None, "parent": None, "created_at": T0,
        "ended_at": None if state == "running" else at(4.4), "steps_total": len(steps), "steps_done": done,
        "note": None, "steps": list(steps),
    }  # fmt: skip
    return run | fields


class FakeApi:
    """State that the routes answer from; ``asked`` is what was asked, in order."""

    def __init__(self) -> None:
        self.url = ""
        self.token: str | None = None
        self.asked: list[tuple[str, str, Any]] = []
        self.workers: dict[str, Json] = {}
        self.definitions: dict[str, Json] = {}
        self.answers: dict[tuple[str, str], tuple[int, Any]] = {}
        """(method, path below the prefix) to (status, JSON)."""
        self.once: set[tuple[str, str]] = set()
        """Answers that are given only once; the next one is that of ``later``, or else the route's own."""
        self.later: dict[tuple[str, str], tuple[int, Any]] = {}
        self.events: dict[str, list[tuple[str, Json]]] = {}
        """Events of a run; the stream ends after a final one, else it stays open."""
        self.restarts = 0
        """How many streams end at their beginning, as when the server restarts."""
        self.busy_seconds = 0.0
        """How long it takes to say that it is up."""
        self.to_start: Json | None = None
        """What ``POST /runs`` starts."""

    def answer(self, method: str, path: str, content: Any, status: int = 200) -> None:
        self.answers[method, path] = status, content

    def then(self, method: str, path: str, content: Any) -> None:
        """Answer with *content* once the answer that is given only once is used up."""
        self.later[method, path] = 200, content

    def refuse(self, method: str, path: str, status: int, code: str, message: str, hint: str | None = None) -> None:
        self.answer(method, path, {"error": {"code": code, "message": message, "hint": hint}}, status)

    def asked_for(self, method: str, path: str) -> list[Any]:
        """The bodies (or queries) of the requests to one route."""
        return [content for asked, where, content in self.asked if (asked, where) == (method, path)]

    async def respond(self, request: Request) -> Response:
        method, path = request.method, request.url.path.removeprefix("/api/v1")
        if path == "/healthz":
            await asyncio.sleep(self.busy_seconds)
            return Response("ok")
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return _refusal(401, "unauthorized", "the API needs a token")
        body = await request.body()
        self.asked.append((method, path, json.loads(body) if body else dict(request.query_params)))
        if (method, path) in self.answers:
            is_once = (method, path) in self.once
            status, content = self.answers.pop((method, path)) if is_once else self.answers[method, path]
            self.answers.update({key: told for key, told in self.later.items() if is_once and key == (method, path)})
            self.once.discard((method, path))
            return JSONResponse(content, status)
        return self._route(method, path, json.loads(body) if body else None)

    def _route(self, method: str, path: str, body: Any) -> Response:
        match method, path.strip("/").split("/"):
            case "POST", ["definitions"]:
                self.definitions |= {one["name"]: one for one in body["definitions"]}
                return JSONResponse({"definitions": len(body["definitions"])})
            case "GET", ["workers"]:
                return JSONResponse({"workers": list(self.workers.values())})
            case "PUT", ["workers", worker]:
                self.workers[worker] = body
                return JSONResponse({})
            case "POST", ["workers", worker, "heartbeat"]:
                return Response(status_code=204) if worker in self.workers else _refusal(404, "worker-not-found", "no")
            case "DELETE", ["workers", worker]:
                self.workers.pop(worker, None)
                return Response(status_code=204)
            case "GET", ["workflows", name] if name in self.definitions:
                one = self.definitions[name]
                return JSONResponse({"name": name, "parameters": one["parameters"], "definition": one})
            case "POST", ["runs"] if self.to_start is not None:
                return JSONResponse(self.to_start, 201)
            case "GET", ["runs", ref, "events"] if ref in self.events:
                if self.restarts > 0:
                    self.restarts -= 1
                    return Response(": nothing yet\n\n", media_type="text/event-stream")
                return StreamingResponse(_stream(self.events[ref]), media_type="text/event-stream")
        return _refusal(404, "not-found", f"there is no {path}")


async def _stream(events: list[tuple[str, Json]]) -> AsyncIterator[bytes]:
    yield b": a comment\n\n"
    for name, data in events:
        yield f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()
    if not events or events[-1][1].get("state") not in {"succeeded", "failed", "cancelled"}:
        await asyncio.Event().wait()


def _refusal(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": {"code": code, "message": message, "hint": None}}, status)


@contextmanager
def serving(api: FakeApi) -> Iterator[FakeApi]:
    """Serve *api* on a free port of this machine, in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    api.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    methods = ["GET", "POST", "PUT", "DELETE"]
    app = Starlette(routes=[Route("/{path:path}", api.respond, methods=methods)])
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", timeout_graceful_shutdown=0))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        yield api
    finally:
        server.should_exit = server.force_exit = True
        thread.join()
        listener.close()
