"""Secrets pushed through every path, and then looked for in every byte that the engine keeps, says and prints."""

import asyncio
import base64
import json as plain_json
import logging
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import pytest
from pydantic import BaseModel
from starlette.responses import Response

from hopline import Request, Retry, approval, http, secret, workflow
from hopline_engine.queue.redacting import Redactor
from tests.support.client import Client
from tests.support.postgres import STORES
from tests.support.running_engine import RunningEngine, running_engine
from tests.support.targets import Asked, accepted, json, target

pytestmark = pytest.mark.anyio

CORE = "cAnArY7391kEpT"
VALUES = {name: f'{CORE}-{name}/+="&<{name}>' for name in ("variable", "file", "store")}
KEY = base64.b64encode(bytes(range(32))).decode()
UNREACHABLE = "http://127.0.0.1:9"


def told() -> dict[str, str]:
    return {
        "X-A": secret("env:CANARY_VARIABLE"),
        "X-B": secret("file:CANARY_FILE"),
        "X-C": secret("store:CANARY_STORE"),
    }


@http
def echoes(url: str) -> Request[dict[str, Any]]:
    return http.post(
        f"{url}/echo?q={secret('env:CANARY_VARIABLE')}", headers=told(), json={"in": secret("CANARY_FILE")}
    )


@http(retry=Retry(2, first="10ms"))
def breaks(url: str) -> Request[None]:
    return http.post(f"{url}/break", headers=told())


@http
def errs(url: str) -> Request[int]:
    return http.post(f"{url}/echo", headers=told())


@http
def misses(path: str) -> Request[None]:
    return http.post(f"{UNREACHABLE}/{path}", params={"key": secret("CANARY_STORE")})


@http(callback=True, deadline="1h")
def waits(url: str) -> Request[dict[str, Any]]:
    return http.post(f"{url}/later", headers=told(), cancel=f"{url}/cancel?key={secret('CANARY_VARIABLE')}")


@http
def holds(url: str) -> Request[str]:
    return http.post(f"{url}/hold")


@holds.undo
@http
def lets_go(held: str) -> Request[None]:
    return http.post(f"{held}/break", headers=told())


@workflow
def echoing(url: str) -> dict[str, Any]:
    return echoes(url)


@workflow
def breaking(url: str) -> None:
    return breaks(url)


@workflow
def erring(url: str) -> int:
    return errs(url)


@workflow
def missing(path: str) -> None:
    return misses(path)


@workflow
def waiting(url: str) -> dict[str, Any]:
    return waits(url)


@workflow(compensate=True)
def undoing(url: str) -> None:
    return breaks.after(holds(url))(url)


class Review(BaseModel):
    note: str


@workflow
def asking(url: str) -> Any:
    echoed = echoes(url)
    prompt = f"Publish {echoed['as it is'][0]} of {echoed['json']}, or {echoed['base64']}?"
    return approval(prompt, to=["ada@example.com"], form=Review)


ALL = (echoing, breaking, erring, missing, waiting, undoing, asking)


def everything(asked: Asked) -> dict[str, Any]:
    """Return what a careless target echoes of a request, in all the forms that one may choose."""
    said = [*asked.headers.values(), asked.url, asked.body.decode()]
    return {
        "as it is": said,
        "percent": [quote(text) for text in said],
        "base64": [
            base64.b64encode(f"{before}{text}".encode()).decode() for text in said for before in ("", "u:", "u")
        ],
        "hex": [text.encode().hex() for text in said],
        "json": [plain_json.dumps({"deep": text}) for text in said],
    } | dict.fromkeys(said, 1)


def answer(asked: Asked) -> Response:
    match asked.path:
        case "/hold":
            return json(str(asked.headers["Host"]) and f"http://{asked.headers['Host']}")
        case "/later":
            return accepted(asked)
        case "/break":
            return json(everything(asked), 500)
    return json(everything(asked))


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set secrets of each kind but those in the store; return the folder of files."""
    monkeypatch.setenv("HOPLINE_SECRET_CANARY_VARIABLE", VALUES["variable"])
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "CANARY_FILE").write_text(VALUES["file"] + "\n")
    return folder


async def push_through(engine: RunningEngine) -> list[bytes]:
    """Let every workflow meet targets that echo; return what the engine's API answers about it."""
    client = engine.client
    kept = await client.ask("POST", "/secrets", json={"name": "CANARY_STORE", "value": VALUES["store"]})
    await engine.register(*ALL)
    answers: list[bytes] = []
    async with target(answer) as careless:
        runs = {flow: await client.start(flow, {"url": careless.url}) for flow in ("echoing", "breaking", "erring")}
        runs["undoing"] = await client.start("undoing", {"url": careless.url})
        runs["missing"] = await client.start("missing", {"path": "p"})
        for name in ("later", "failed", "cancelled"):
            runs[name] = await client.start("waiting", {"url": careless.url})
            await client.step_in(runs[name], "waits", "waiting")
            asked = next(each for each in reversed(careless.asked) if each.path == "/later")
            beat = {"heartbeat": 60, "progress": plain_json.dumps(asked.headers["X-A"])}
            assert (await asked.call_back(beat)).status_code == 200
            answers.append(await read(client.http, f"/runs/{runs[name]}"))
            if name == "later":
                assert (await asked.call_back({"result": everything(asked)})).status_code == 200
                assert (await asked.call_back({"result": everything(asked)})).json() == {"outcome": "already"}
            elif name == "failed":
                text = plain_json.dumps(everything(asked))
                assert (await asked.call_back({"error": {"type": "Declined", "message": text}})).status_code == 200
            else:
                assert await client.cancel(runs[name])
        runs["asking"] = await client.start("asking", {"url": careless.url})
        answers += await on_the_page(client, runs["asking"])
        states = {name: (await client.ended(run))["state"] for name, run in runs.items()}
        sent = plain_json.dumps([everything(asked) for asked in careless.asked])
    assert states == dict.fromkeys(runs, "failed") | dict.fromkeys(("echoing", "later", "asking"), "succeeded") | {
        "cancelled": "cancelled"
    }
    assert all(value in plain_json.loads(sent)[0]["as it is"] for value in VALUES.values()), "the target was told"
    answers += [plain_json.dumps(kept).encode(), *[await read(client.http, f"/runs/{run}") for run in runs.values()]]
    for run in runs.values():
        answers += [await read(client.http, f"/runs/{run}/{part}") for part in ("logs", "why", "result", "steps")]
    for path in ("/runs", "/workflows", "/workflows/echoing", "/secrets", "/doctor", "/queues", "/openapi.json"):
        answers.append(await read(client.http, path))
    return answers


async def on_the_page(client: Client, run: str) -> list[bytes]:
    """Return what the page of an approval shows, asked for, refused, decided and asked for again, and what is told."""
    await client.step_in(run, "approval", "waiting")
    told = [await read(client.http, path) for path in ("/approvals", f"/approvals/{run}/approval", f"/runs/{run}/why")]
    link = plain_json.loads(told[1])["link"]
    origin = {"Origin": link.partition("/api")[0]}
    pages = [await client.http.get(link)]
    for by in ("", "Ada"):
        form = {"decision": "approve", "by": by, "form.note": "fine"}
        pages.append(await client.http.post(link, data=form, headers=origin))
    pages.append(await client.http.get(link))
    assert [page.status_code for page in pages] == [200, 422, 200, 200]
    return [*told, *(page.content for page in pages), await read(client.http, "/approvals?state=all")]


async def read(http: Any, path: str) -> bytes:
    return bytes((await http.get(path)).content)


async def printed(engine: RunningEngine, folder: Path) -> list[bytes]:
    """Return what commands print."""
    said: list[bytes] = []
    client = engine.client
    (echoed,) = [run["id"] for run in (await client.ask("GET", "/runs"))["runs"] if run["workflow"] == "echoing"]
    for words in (
        ("runs", "show", echoed, "--json"),
        ("runs", "show", "@failed"),
        ("runs", "logs", "@failed"),
        ("secrets", "list"),
        ("workflows", "graph", "echoing", "--json"),
        ("doctor",),
    ):
        command = [sys.executable, "-m", "hopline_cli", *words]
        environment = {**os.environ, "HOPLINE_SERVER_URL": engine.url}
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=environment, cwd=folder)
        said += await process.communicate()
    assert any(b"[secret env:CANARY_VARIABLE]" in out for out in said), said
    return said


async def stored(folder: Path, store: str) -> list[bytes]:
    """Return everything in the files of a SQLite store, or in all rows of all tables of a Postgres database."""
    if not store:
        with closing(sqlite3.connect(folder / ".hopline" / "hopline.db")) as database:
            names = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            rows: list[Any] = [row for name in names for row in database.execute(f'SELECT * FROM "{name}"')]
        files = [path.read_bytes() for path in (folder / ".hopline").iterdir() if path.is_file()]
        return [*files, *cells(rows)]
    connection = await asyncpg.connect(store)
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        rows = [row for (name,) in tables for row in await connection.fetch(f'SELECT * FROM "{name}"')]
    finally:
        await connection.close()
    return cells(rows)


def cells(rows: list[Any]) -> list[bytes]:
    return [cell if isinstance(cell, bytes) else str(cell).encode() for row in rows for cell in row]


def traces() -> Iterator[bytes]:
    """Yield what is in every encoding of a text with the canary in it."""
    core = CORE.encode()
    yield core
    yield core.hex().encode()
    for offset in range(3):
        yield base64.b64encode(bytes(offset) + core)[4:-4]


def leaks(found: list[bytes]) -> list[bytes]:
    """Return what holds the canary, with what is around it."""
    lowered = [trace.lower() for trace in traces()]
    return [
        text[max(0, text.lower().index(trace) - 60) :][:160]
        for text in found
        for trace in lowered
        if trace in text.lower()
    ]


async def all_that_is_kept(
    folder: Path, secrets: Path, store: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> dict[str, list[bytes]]:
    caplog.set_level(logging.DEBUG)
    async with running_engine(
        folder, store=store, secrets_dir=secrets, secrets_key=(KEY,), finds_nothing=False
    ) as engine:
        found = {"api": await push_through(engine), "cli": await printed(engine, folder)}
    found["store"] = await stored(folder, store)
    found["logs"] = [caplog.text.encode(), *(text.encode() for text in capfd.readouterr())]
    assert any(b"[secret file:CANARY_FILE]" in cell for cell in found["store"]), "there was something to take out"
    return found


@pytest.mark.parametrize("kind", STORES)
async def test_no_secret_is_kept_said_or_printed(
    kind: str,
    tmp_path: Path,
    secrets: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with STORES[kind]() as store:
        found = await all_that_is_kept(tmp_path, secrets, store, caplog, capfd)
    pages = [text for text in found["api"] if text.startswith(b"<!doctype html>")]
    assert [b"[secret env:CANARY_VARIABLE]" in page for page in pages] == [True] * 4, "pages show what was echoed"
    assert {place: leaks(texts) for place, texts in found.items()} == {place: [] for place in found}


@pytest.mark.parametrize("part", ["body", "failure"])
async def test_the_canary_is_found_when_secrets_are_not_taken_out(
    part: str,
    tmp_path: Path,
    secrets: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """A search that finds nothing whatever there is would prove nothing."""
    whole = getattr(Redactor, part)

    def leaky(self: Redactor, said: Any) -> Any:
        clean = whole(self, said)
        if part == "failure":
            return clean._replace(message=said.message)
        return clean + b"" if b'"hex"' not in clean else said

    monkeypatch.setattr(Redactor, part, leaky)
    found = await all_that_is_kept(tmp_path, secrets, "", caplog, capfd)
    assert leaks(found["store"])
    assert leaks(found["api"])
