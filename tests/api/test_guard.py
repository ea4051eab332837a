"""Who is let in: tokens, host names, origins."""

import re
from collections.abc import Iterator

import httpx
import pytest
from starlette.routing import Route

from hopline_engine.api.app import PREFIX, ROUTERS
from tests.api.conftest import client_of, refusal, start
from tests.api.small_engine import SmallEngine

pytestmark = pytest.mark.anyio

SECRET = "s3cret-tökén"
OPEN = {
    "/healthz",
    "/readyz",
    "/api/v1/callbacks/{run}/{attempt}/{step}",
    "/api/v1/approvals/{run}/{step}/page",
}


def authorization(value: str) -> list[tuple[bytes, bytes]]:
    return [(b"Authorization", value.encode())]


def every_route() -> Iterator[tuple[str, str]]:
    yield f"{PREFIX}/openapi.json", "GET"
    for prefix, router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, Route)
            yield from ((prefix + route.path, method) for method in route.methods or ())


async def test_every_route_but_the_open_ones_needs_the_token(engine: SmallEngine) -> None:
    routes = set(every_route())
    assert {path for path, _ in routes} > OPEN
    async with client_of(engine, api_token=SECRET) as client:
        for path, method in sorted(routes):
            filled = re.sub(r"{(\w+)}", r"\1", path)
            for headers in ([], authorization("Bearer wrong"), authorization(SECRET)):
                response = await client.request(method, filled, headers=headers)
                is_refused = response.status_code == 401 and response.json()["error"]["code"] == "unauthorized"
                assert is_refused == (path not in OPEN), (method, path)


async def test_unknown_paths_need_the_token_too(engine: SmallEngine) -> None:
    async with client_of(engine, api_token=SECRET) as client:
        for path in ("/", "/api/v1/nothing", "/docs", "/healthz/", "/healthz/x", "/api/v1/callbacks", "//healthz"):
            response = await client.get(httpx.URL(f"http://127.0.0.1:8484{path}"))
            assert refusal(response) == (401, "unauthorized"), path
            assert response.headers["www-authenticate"] == "Bearer"


async def test_right_token_opens_the_api(engine: SmallEngine) -> None:
    async with client_of(engine, api_token=SECRET) as client:
        for scheme in ("Bearer", "bearer"):
            response = await client.get("/api/v1/runs", headers=authorization(f"{scheme} {SECRET}"))
            assert response.status_code == 200


async def test_without_a_token_in_the_settings_none_is_needed(client: httpx.AsyncClient) -> None:
    assert (await client.get("/api/v1/runs")).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8484", "[::1]:8484", "LOCALHOST:1", "build.example:8484"])
async def test_own_names_are_let_in(engine: SmallEngine, host: str) -> None:
    async with client_of(engine, allowed_hosts=("Build.example",)) as client:
        assert (await client.get("/api/v1/runs", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8484", "localhost.evil.example", "127.0.0.1@evil.example", "[", "[::2]", ""]
)
async def test_foreign_name_of_this_machine_is_421(client: httpx.AsyncClient, host: str) -> None:
    for path in ("/api/v1/runs", "/healthz"):
        assert refusal(await client.get(path, headers={"Host": host})) == (421, "unknown-host")


async def test_host_of_the_public_address_is_let_in(engine: SmallEngine) -> None:
    async with client_of(engine, public_url="https://flows.example/hopline") as client:
        assert (await client.get("/healthz", headers={"Host": "flows.example"})).status_code == 200


async def test_server_that_listens_for_others_does_not_judge_names(engine: SmallEngine) -> None:
    async with client_of(engine, host="0.0.0.0", api_token="secret") as client:
        assert (await client.get("/healthz", headers={"Host": "flows.example"})).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:3000", "null", ""])
async def test_page_of_another_site_may_not_change_anything(client: httpx.AsyncClient, origin: str) -> None:
    run = await start(client)
    response = await client.post(f"/api/v1/runs/{run}/cancel", headers={"Origin": origin})
    assert refusal(response) == (403, "foreign-origin")
    assert (await client.get(f"/api/v1/runs/{run}")).json()["state"] == "running"


async def test_own_page_may_change_things(client: httpx.AsyncClient) -> None:
    run = await start(client)
    response = await client.post(f"/api/v1/runs/{run}/cancel", headers={"Origin": "http://127.0.0.1:8484"})
    assert response.status_code == 200


async def test_every_answer_has_the_security_headers(client: httpx.AsyncClient) -> None:
    for response in (
        await client.get("/healthz"),
        await client.get("/api/v1/runs"),
        await client.get("/nothing"),
        await client.get("/healthz", headers={"Host": "evil.example"}),
    ):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
        assert "access-control-allow-origin" not in response.headers
