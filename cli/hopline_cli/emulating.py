"""Serving the Cloud Tasks API, and telling how to point clients at it."""

from hopline_cli import screen
from hopline_cli.errors import UsageError
from hopline_cli.interrupts import Interrupted, Interrupts
from hopline_cli.server import listening, load_settings, opened
from hopline_cli.text import printable
from hopline_engine.listening import is_loopback


async def serve_emulator(
    grpc_port: int, rest_port: int, host: str | None, *, create_queues: bool | None, as_json: bool
) -> None:
    """Serve until asked to stop."""
    settings = load_settings(host=host, port=rest_port, grpc_port=grpc_port, create_queues=create_queues)
    if not is_loopback(settings.host) and not settings.api_token:
        raise UsageError(
            f"listening on {settings.host} would open the API to everyone who reaches this machine",
            code="token-needed",
            hint="set HOPLINE_API_TOKEN to a secret of your own, or keep to --host 127.0.0.1",
        )
    interrupts = Interrupts()
    with interrupts.caught():
        async with opened(settings, dispatch=True) as engine:
            url = await listening(engine, rest_port)
            assert engine.grpc_port is not None
            _tell(url, engine.grpc_port, str(settings.store_shown), as_json=as_json)
            try:
                raise await interrupts.unless_asked(engine.lost())
            except Interrupted:
                screen.say("stopping")


def _tell(url: str, grpc_port: int, store: str, *, as_json: bool) -> None:
    address = url.partition("://")[2]
    host = address.rpartition(":")[0]
    grpc_address = f"{host}:{grpc_port}"
    if as_json:
        screen.put_json({"rest": url, "grpc": grpc_address})
    else:
        screen.put(
            f"export CLOUD_TASKS_EMULATOR_HOST={address}",
            "",
            "# gRPC",
            "from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport as Transport",
            f'client = CloudTasksClient(transport=Transport(channel=grpc.insecure_channel("{grpc_address}")))',
            "# REST",
            f'options = {{"api_endpoint": "{url}"}}',
            'client = CloudTasksClient(credentials=AnonymousCredentials(), transport="rest", client_options=options)',
        )
    screen.data().file.flush()
    screen.say(f"serving {printable(store)}: gRPC at {grpc_address}, REST at {url}")
