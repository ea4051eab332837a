"""Ports for servers that tests stop and start again: none is given to two tests, also of processes side by side."""

import fcntl
import functools
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from itertools import count

from tests.support.disk import DISK

_PORTS: Iterator[int] = count(20_000 + os.getpid() % 10_000)
"""Below those that the system gives to outgoing connections: nobody takes the port while its server is down."""


def free_port() -> int:
    """Return a port that nobody listens on, and that no other process which tests gets as long as this one lives."""
    for port in _PORTS:
        with suppress(OSError), socket.socket() as probe:
            fcntl.lockf(_claims(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@functools.cache
def _claims() -> int:
    """Open the file in which each byte stands for a port, and is locked by the process that has the port."""
    file = DISK / f"hopline-test-ports-{os.getuid()}"
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
