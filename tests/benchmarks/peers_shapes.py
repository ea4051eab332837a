"""What the scripts of all peers share: sizes from the command line, and figures as one JSON object on stdout.

    python peers_NAME.py FOLDER ROUNDS CHAIN WIDTH RUNS STARTS

Each runs inside its own environment, so nothing here needs more than the standard library.
"""

import itertools
import json
import socket
import statistics
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

UP_SECONDS = 60.0


class Shapes(NamedTuple):
    """The sizes of W1 to W4."""

    folder: str
    """Where the peer may keep what it likes."""
    rounds: int
    length: int
    width: int
    runs: int
    starts: int


def asked() -> Shapes:
    """Return what the command line says."""
    return Shapes(sys.argv[1], *map(int, sys.argv[2:7]))


def tell(shapes: Shapes, measures: Mapping[str, Callable[[], float]]) -> None:
    """Print what each workload gives in each round; one that fails is left out and told of."""
    found: dict[str, list[float]] = {}
    for name, measure in measures.items():
        try:
            found[name] = [measure() for _ in range(shapes.rounds)]
        except Exception as error:  # noqa: BLE001 - the other workloads are worth having
            print(f"left out: {name}: {type(error).__name__}: {error}", file=sys.stderr)
    print(json.dumps(found), flush=True)


def median_hop_ms(begun: Sequence[float]) -> float:
    """Return the median milliseconds from the start of a step to that of the next."""
    return statistics.median(after - before for before, after in itertools.pairwise(sorted(begun))) * 1e3


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(url: str) -> None:
    """Return once something answers at *url*."""
    give_up = time.monotonic() + UP_SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)
        else:
            return
