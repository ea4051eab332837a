"""An engine's HTTP API, as a program next to it uses it."""

from types import TracebackType
from typing import Any, Self

import httpx

from tests.support.waiting import WITHIN, until_seen

Json = dict[str, Any]

ENDED = frozenset({"succeeded", "failed", "cancelled"})


class Client:
    """Starts runs and looks at them. Asks again while the engine is away, so it may be killed at any time."""

    def __init__(self, url: str, transport: httpx.AsyncBaseTransport | None = None, patience: float = WITHIN) -> None:
        """Make a client that asks for *patience* seconds for an answer, unless told otherwise."""
        self._patience = patience
        self.http = httpx.AsyncClient(
            base_url=f"{url}/api/v1", timeout=30, trust_env=False, verify=False, transport=transport
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()

    async def ask(self, method: str, path: str, *, within: float | None = None, **options: Any) -> Json:
        """Return the JSON of a successful answer, asking again while there is none or it is a 5xx."""

        async def look() -> httpx.Response | None:
            try:
                response = await self.http.request(method, path, **options)
            except httpx.TransportError:
                return None
            return None if response.is_server_error else response

        response = await until_seen(look, f"an answer to {method} {path}", self._patience if within is None else within)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        answer: Json = response.json()
        return answer

    async def start(self, workflow: str, run_input: Json | None = None, key: str | None = None) -> str:
        """Start a run and return its id. With a *key* it is one run, however often the start has to be repeated."""
        asked = {"workflow": workflow, "input": run_input or {}, "idempotency_key": key}
        if key is None:  # asking again could start a second one
            response = await self.http.post("/runs", json=asked, timeout=WITHIN)
            assert response.status_code == 201, response.text
            return str(response.json()["id"])
        return str((await self.ask("POST", "/runs", json=asked))["id"])

    async def cancel(self, run: str, within: float = WITHIN) -> bool:
        """Cancel a run, unless it has ended; return whether it is cancelled."""
        told: list[object] = []

        async def look() -> httpx.Response | None:
            try:
                response = await self.http.post(f"/runs/{run}/cancel")
            except httpx.TransportError as error:
                told.append(error)
                return None
            told.append(response.text)
            return None if response.is_server_error else response

        try:
            await until_seen(look, f"an answer to the cancellation of {run}", within)
        except AssertionError as error:
            raise AssertionError(f"{error}; was told {told[-3:]} in {len(told)} answers") from None
        return bool((await self.run(run))["state"] == "cancelled")

    async def run(self, run: str) -> Json:
        """Return a run with its steps."""
        return await self.ask("GET", f"/runs/{run}")

    async def ended(self, run: str, within: float = WITHIN) -> Json:
        """Return a run once it is over."""

        async def look() -> Json | None:
            found = await self.run(run)
            return found if found["state"] in ENDED else None

        return await until_seen(look, f"run {run} ends", within, lasts=True)

    async def step(self, run: str, step: str) -> Json:
        """Return one step of a run."""
        return next(found for found in (await self.run(run))["steps"] if found["id"] == step)

    async def step_in(self, run: str, step: str, state: str, within: float = WITHIN) -> Json:
        """Return a step once it is in a state."""

        async def look() -> Json | None:
            found = await self.step(run, step)
            return found if found["state"] == state else None

        return await until_seen(look, f"{step} of {run} is {state}", within)

    async def attempts(self, run: str, step: str | None = None) -> list[Json]:
        """Return the attempts of a run, or of one step, that are over."""
        found = await self.ask("GET", f"/runs/{run}/logs", params={} if step is None else {"step": step})
        attempts: list[Json] = found["attempts"]
        return attempts

    async def states(self, run: str, step: str) -> list[str]:
        """Return how the attempts of a step ended, first to last."""
        return [attempt["state"] for attempt in await self.attempts(run, step)]

    async def worker_pids(self) -> set[int]:
        """Return the process ids of the workers that the engine sends steps to."""
        return {worker["pid"] for worker in (await self.ask("GET", "/workers"))["workers"]}
