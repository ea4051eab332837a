"""A local HTTP handler as a process: answers every POST with the time at which it came, in Unix seconds.

``/accepted`` is answered 202, and never called back; ``/later`` with 503 and a wish to be asked again in an hour.
Prints its address as its first line. Plain ASGI on the same server as the product's worker, and nothing else: what it
costs is the machine's floor of an exchange.
"""

import socket
import time
from typing import Any

import uvicorn

_ANSWERS: dict[str, tuple[int, list[tuple[bytes, bytes]]]] = {
    "/accepted": (202, []),
    "/later": (503, [(b"retry-after", b"3600")]),
}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    began = time.time()
    while (await receive()).get("more_body"):
        pass
    body = repr(began).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    status, more = _ANSWERS.get(scope["path"], (200, []))
    await send({"type": "http.response.start", "status": status, "headers": headers + more})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    # The protocol is named because asyncio turns Nagle's algorithm off only then.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)  # who connects from now on waits until the server is up
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/", flush=True)
    config = uvicorn.Config(
        app, http="httptools", lifespan="off", log_config=None, access_log=False, timeout_keep_alive=300
    )
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
