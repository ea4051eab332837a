"""Where servers and workers of this package listen."""

import socket
from ipaddress import ip_address


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 is any free one. Raises OSError.

    From now on nobody is refused, though answers take until somebody serves it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio turns Nagle's algorithm off only then; with it, an answer takes 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except BaseException:
        listener.close()
        raise
    return listener


def is_loopback(host: str) -> bool:
    """Return whether a name or address stands for this machine only.

    >>> [is_loopback(host) for host in ("localhost", "127.8.8.8", "::1", "0.0.0.0", "localhost.evil.example")]
    [True, True, True, False, False]
    """
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
