"""Secrets that the store keeps: set, used, listed, forgotten, and encrypted with another key."""

import asyncio
import base64
import os
import sys
from pathlib import Path

import pytest

from hopline import Request, Retry, http, secret, workflow
from tests.support.running_engine import RunningEngine, running_engine
from tests.support.targets import json, target
from tests.support.waiting import until_seen

pytestmark = pytest.mark.anyio

OLD, NEW = (base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2))


@http(retry=Retry(100, first="200ms", factor=1))
def ask(url: str) -> Request[int]:
    return http.get(url, headers={"X-Token": secret("TOKEN")})


@workflow
def asking(url: str) -> int:
    return ask(url)


async def names(engine: RunningEngine) -> dict[str, list[str]]:
    return {each["name"]: each["used_by"] for each in (await engine.client.ask("GET", "/secrets"))["secrets"]}


async def set_to(engine: RunningEngine, value: str) -> None:
    await engine.client.ask("POST", "/secrets", json={"name": "TOKEN", "value": value})


async def test_a_step_without_its_secret_says_so_and_goes_on_when_it_is_set(tmp_path: Path, store: str) -> None:
    async with running_engine(tmp_path, store=store, secrets_key=(OLD,)) as engine, target(lambda _: json(7)) as asked:
        await engine.register(asking)
        run = await engine.client.start("asking", {"url": asked.url})

        async def failed() -> str | None:
            tried = await engine.client.attempts(run, "ask")
            return tried[0]["error"]["message"] if tried else None

        said = await until_seen(failed, "an attempt that fails")
        assert said.startswith("secret 'TOKEN' is not set; set HOPLINE_SECRET_TOKEN where the engine runs, or: hopline")
        (missing,) = (await engine.client.ask("GET", "/secrets"))["missing"]
        assert missing["used_by"] == ["asking"]
        await set_to(engine, "the-value")
        assert (await engine.client.ended(run))["result"] == 7
        assert asked.asked[0].headers["X-Token"] == "the-value"
        assert await names(engine) == {"TOKEN": ["asking"]}
        assert (await engine.client.ask("GET", "/secrets"))["missing"] == []


async def test_keys_are_rotated_while_steps_go_on(tmp_path: Path, store: str) -> None:
    async with target(lambda _: json(7)) as asked:

        async def told_with(*keys: str, rotates: int | None = None) -> str:
            async with running_engine(tmp_path, store=store, secrets_key=keys) as engine:
                await engine.register(asking)
                if not await names(engine):
                    await set_to(engine, "the-value")
                if rotates is not None:
                    assert await engine.client.ask("POST", "/secrets/rotate") == {"secrets": rotates}
                run = await engine.client.start("asking", {"url": asked.url})
                await engine.client.ended(run)
                return asked.asked[-1].headers["X-Token"]

        assert await told_with(OLD) == "the-value"
        assert await told_with(NEW, OLD) == "the-value"
        assert await told_with(NEW, OLD, rotates=1) == "the-value"
        assert await told_with(NEW, rotates=0) == "the-value"


async def test_a_secret_whose_key_is_away_fails_visibly(tmp_path: Path) -> None:
    async with running_engine(tmp_path, secrets_key=(OLD,)) as engine:
        await set_to(engine, "the-value")
    async with running_engine(tmp_path, secrets_key=(NEW,)) as engine:
        await engine.register(asking)
        (missing,) = (await engine.client.ask("GET", "/secrets"))["missing"]
        assert missing["message"].startswith("secret 'TOKEN' was encrypted with a key that is not here")
        refused = await engine.client.http.post("/secrets/rotate")
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "secrets-key")
        checks = (await engine.client.ask("GET", "/doctor"))["checks"]
        assert [check["state"] for check in checks if check["name"] == "secret"] == ["wrong"]


async def test_what_cannot_be_kept_is_refused_without_showing_it(tmp_path: Path) -> None:
    async with running_engine(tmp_path) as engine:
        post = engine.client.http.post
        for body, code in (
            ({"name": "TOKEN", "value": "the-value"}, "secrets-key"),
            ({"name": "TOKEN", "value": "x!z"}, "invalid-secret"),
            ({"name": "TO KEN", "value": "the-value"}, "invalid-request"),
            ({"name": "TOKEN", "value": ["the-value"]}, "invalid-request"),
            ({"name": "TOKEN", "valve": "the-value"}, "invalid-request"),
        ):
            refused = await post("/secrets", json=body)
            assert refused.json()["error"]["code"] == code
            assert "the-value" not in refused.text
            assert "x!z" not in refused.text
        gone = await engine.client.http.delete("/secrets/TOKEN")
        assert gone.json()["error"]["code"] == "secret-not-found"


async def test_commands_keep_list_and_forget_secrets(tmp_path: Path) -> None:
    async with running_engine(tmp_path, secrets_key=(OLD,)) as engine:

        async def hopline(*words: str, given: str = "") -> str:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "hopline_cli", "secrets", *words),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, "HOPLINE_SERVER_URL": engine.url},
                cwd=tmp_path,
            )
            said, _ = await process.communicate(given.encode())
            assert process.returncode == 0, said
            assert b"the-value" not in said
            return said.decode()

        await engine.register(asking)
        assert "needed by asking: secret 'TOKEN' is not set" in await hopline("list")
        assert await hopline("set", "TOKEN", given="the-value\n") == "secret TOKEN is kept in the store, encrypted\n"
        assert "asking" in await hopline("list")
        assert await hopline("rotate") == "0 secrets encrypted again; all are under the first key now\n"
        async with target(lambda _: json(7)) as asked:
            await engine.client.ended(await engine.client.start("asking", {"url": asked.url}))
            assert asked.asked[0].headers["X-Token"] == "the-value"
        assert await hopline("rm", "TOKEN", "--yes") == "secret TOKEN is gone; needed by asking\n"
        assert await names(engine) == {}
