"""The worker's command line."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

DEFAULT_SERVER = "http://127.0.0.1:8484"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a worker was asked to do."""

    paths: tuple[str, ...]
    server: str = DEFAULT_SERVER
    host: str = "127.0.0.1"
    port: int = 0
    concurrency: int = 64
    processes: int = 1
    grace_seconds: float = 10.0
    report_fd: int | None = None
    exit_with_parent: bool = False
    reloads: bool = False
    no_schedules: bool = False
    verbose: bool = False
    pulls: tuple[str, ...] = ()
    lease_seconds: int = 30


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Return the options in *arguments*, by default the process's own; exits with 2 when they are wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m hopline_engine.worker", description="Serve the steps in users' files to a Hopline server."
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a file, or a folder of .py files")
    parser.add_argument("--server", type=_url, default=DEFAULT_SERVER, help="base URL of the server")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 for any free one")
    parser.add_argument("--concurrency", type=_positive, default=64, help="steps that may run at a time")
    parser.add_argument("--processes", type=_positive, default=1, help="worker processes, for steps that compute")
    parser.add_argument(
        "--grace", type=float, default=10.0, dest="grace_seconds", help="seconds to wait for running steps when stopped"
    )
    parser.add_argument("--report-fd", type=int, help="file descriptor for one line of JSON once the worker is up")
    parser.add_argument("--exit-with-parent", action="store_true", help="stop when stdin, a pipe, is closed")
    parser.add_argument(
        "--reloads", action="store_true", help="tell that another worker takes over when the files change"
    )
    parser.add_argument(
        "--no-schedules", action="store_true", help="leave schedules as they are, whatever the files say of them"
    )
    parser.add_argument("--verbose", action="store_true", help="also show on stderr what steps print and log")
    parser.add_argument(
        "--pull",
        action="append",
        default=[],
        dest="pulls",
        metavar="QUEUE[=STEP]",
        help="take tasks of a pull queue, for a step or for the one that the tag of each task names",
    )
    parser.add_argument(
        "--lease",
        type=_positive,
        default=30,
        dest="lease_seconds",
        help="seconds after which tasks of a dead worker return",
    )
    values = vars(parser.parse_args(arguments))
    if values["port"] and values["processes"] > 1:
        parser.error("several processes cannot listen on one --port; leave it out")
    return Options(**{**values, "paths": tuple(values["paths"]), "pulls": tuple(values["pulls"])})


def to_arguments(options: Options, report_fd: int | None) -> list[str]:
    """Return the arguments of one of several processes: it lives no longer than the one that starts it."""
    arguments = ["--exit-with-parent", "--server", options.server, "--host", options.host]
    arguments += ["--concurrency", str(options.concurrency), "--grace", str(options.grace_seconds)]
    arguments += ["--lease", str(options.lease_seconds)]
    arguments += [f"--pull={pull}" for pull in options.pulls]
    if report_fd is not None:
        arguments += ["--report-fd", str(report_fd)]
    switches = ("reloads", "no_schedules", "verbose")
    arguments += [f"--{name.replace('_', '-')}" for name in switches if getattr(options, name)]
    return [*arguments, "--", *options.paths]


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r} is not an http:// or https:// URL")
    return text


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number
