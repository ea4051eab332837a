"""Other engines with the same workloads, each in an environment of its own, made when it is first asked for."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import venv
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
UNITS = {"W1": "ms", "W2": "steps/s", "W3": "steps/s", "W4": "ms"}
SECONDS = 900
"""Longest that one engine is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Another engine."""

    name: str
    script: str
    requirements: tuple[str, ...]
    """What it needs from PyPI."""
    variant: str = ""
    """Which of several ways of the script to measure."""
    package: str | None = None
    """What it needs from npm."""
    tool: str | None = None
    """The program it needs: of that package, or of the system."""
    advice: str = ""
    """How to get a program of the system."""

    @property
    def environment(self) -> Path:
        """Where it is installed; variants share that."""
        return _cache() / self.script.removesuffix(".py")


_RESTATE = ("restate-sdk>=0.8", "hypercorn>=0.17", "httpx>=0.28")
_RESTATE_SERVER = "@restatedev/restate-server"
PEERS = (
    Peer(
        name="Restate, each step an HTTP call",
        script="peers_restate.py",
        variant="calls",
        requirements=_RESTATE,
        package=_RESTATE_SERVER,
        tool="restate-server",
    ),
    Peer(
        name="Restate, steps as closures in one handler",
        script="peers_restate.py",
        variant="closures",
        requirements=_RESTATE,
        package=_RESTATE_SERVER,
        tool="restate-server",
    ),
    Peer(name="DBOS on SQLite (functions in its process)", script="peers_dbos.py", requirements=("dbos>=3.4",)),
    Peer(name="Prefect on SQLite", script="peers_prefect.py", requirements=("prefect>=3.4", "fastapi<0.150")),
    Peer(
        name="Celery on Redis (not durable)",
        script="peers_celery.py",
        requirements=("celery[redis]>=5.5",),
        tool="redis-server",
        advice="it is in the Debian package redis-server",
    ),
)


class MissingError(Exception):
    """Something that a peer needs cannot be had here."""


def measure(folder: Path, rounds: int, *, small: bool, only: str = "") -> list[dict[str, object]]:
    """Return the figures of each peer whose name has *only* in it; what fails is told of, and stops no other."""
    sizes = ["10", "100", "20", "5"] if small else ["100", "1000", "200", "50"]
    figures = []
    for peer in PEERS:
        if only.lower() not in peer.name.lower():
            continue
        try:
            figures += _measured(peer, folder, [str(rounds), *sizes])
        except (OSError, ValueError, subprocess.SubprocessError, MissingError) as error:
            print(f"left out: {peer.name}: {error}", file=sys.stderr)
    return figures


def _measured(peer: Peer, folder: Path, sizes: list[str]) -> list[dict[str, object]]:
    python = _python(peer)
    tool = _tool(peer)
    own = folder / f"{peer.script}-{peer.variant}"
    own.mkdir()
    command = [str(python), str(HERE / peer.script), str(own), *sizes]
    environment = {**os.environ, "PEER_VARIANT": peer.variant, "PEER_TOOL": tool}
    environment.pop("PYTHONPATH", None)  # what is installed there is ours, not the peer's
    found: dict[str, list[float]] = json.loads(_last_line(command, environment))
    figures: list[dict[str, object]] = [
        {"peer": peer.name, "workload": name, "value": statistics.median(values), "unit": UNITS[name], "rounds": values}
        for name, values in found.items()
    ]
    for each in figures:
        print(f"{each['peer']}: {each['workload']} {each['value']:.4g} {each['unit']}", flush=True)
    return figures


def _last_line(command: list[str], environment: dict[str, str]) -> str:
    """Return the last line that a command prints; whatever it has started ends with it."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    try:
        told, _ = process.communicate(timeout=SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return told.splitlines()[-1]


def _python(peer: Peer) -> Path:
    """Return the Python of the peer's environment, which is made if it is not there."""
    python = peer.environment / "bin" / "python"
    done = peer.environment / "installed"
    if not done.exists():
        venv.create(peer.environment, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *peer.requirements], check=True)
        if peer.package is not None:
            _install_from_npm(peer.package, peer.environment)
        done.touch()
    return python


def _install_from_npm(package: str, folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise MissingError(f"{package} is installed by npm, which is not here")
    subprocess.run([npm, "install", "--silent", "--prefix", folder, package], check=True, stdout=subprocess.DEVNULL)


def _tool(peer: Peer) -> str:
    if peer.tool is None:
        return ""
    found = shutil.which(peer.tool, path=os.pathsep.join((f"{peer.environment}/node_modules/.bin", os.environ["PATH"])))
    if found is None:
        raise MissingError(f"there is no {peer.tool} here; {peer.advice}")
    return found


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hopline-benchmarks"
