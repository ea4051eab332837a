"""Orders to runs: watch, retry, cancel."""

from hopline_cli import screen
from hopline_cli.answers import FINAL_RUN_STATES, Run, RunDetail
from hopline_cli.client import quoted
from hopline_cli.errors import CliError, ExitCode
from hopline_cli.running import Order, carry_out, tell_outcome
from hopline_cli.server import Place, load_settings, reached, running_server


async def watch_run(ref: str, order: Order) -> int:
    """Watch a run to its end and return the exit code."""
    if order.file is None and not await _is_server_up(order.server):
        return await _tell_at_rest(ref, order)

    async def find(place: Place, _: list[str]) -> Run:
        run: Run = await place.api.get(f"/runs/{quoted(ref)}")
        return run

    return await carry_out(order, find)


async def _is_server_up(server: str | None) -> bool:
    settings = load_settings(server_url=server)
    return settings.server_url is not None or await running_server(settings) is not None


async def _tell_at_rest(ref: str, order: Order) -> int:
    """Tell the outcome of a run that has ended; one that has not will not move, as no engine runs."""
    async with reached(order.server) as api:
        run: RunDetail = await api.get(f"/runs/{quoted(ref)}")
        if run["state"] in FINAL_RUN_STATES:
            return await tell_outcome(api, run, order, own=False)
    raise CliError(
        "no-engine",
        f"{run['id']} is {run['state']}, but no server is up that could go on with it",
        hint=f"go on with it here: hopline runs watch {run['id']} FILE",
        exit_code=ExitCode.NO_SERVER,
    )


async def retry_run(ref: str, order: Order) -> int:
    """Begin a new run that keeps what has succeeded; watch it when the order says so."""
    if order.file is not None:

        async def begin(place: Place, _: list[str]) -> Run:
            run: Run = await place.api.post(f"/runs/{quoted(ref)}/retry")
            screen.say(f"{run['id']} retries {run['retry_of']}")
            return run

        return await carry_out(order, begin)
    async with reached(order.server) as api:
        run: Run = await api.post(f"/runs/{quoted(ref)}/retry")
    _put_run(run, as_json=order.as_json)
    file = "" if await _is_server_up(order.server) else " FILE"
    screen.say(f"{run['id']} retries {run['retry_of']}; watch it with: hopline runs watch {run['id']}{file}")
    return ExitCode.OK


async def cancel_run(ref: str, *, as_json: bool, server: str | None) -> None:
    """Cancel a run."""
    async with reached(server) as api:
        run: Run = await api.post(f"/runs/{quoted(ref)}/cancel")
    _put_run(run, as_json=as_json)
    screen.say(f"cancelled {run['id']} of {run['workflow']}")


def _put_run(run: Run, *, as_json: bool) -> None:
    if as_json:
        screen.put_json(run)
    else:
        screen.put(run["id"])
