"""Measures what a person waits for before anything happens: starting Python, importing ``hopline``, ``hopline --help``.

    python tests/benchmarks/import_time.py [--times 20]

Prints the median of each in milliseconds, and the modules that take longest to import in each.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time

COMMANDS: dict[str, list[str]] = {
    "python": ["-c", ""],
    "import hopline": ["-c", "import hopline"],
    "hopline --help": ["-m", "hopline_cli", "--help"],
}
SHOWN = 5
_LINE = re.compile(r"import time: +(?P<own>\d+) \| +(?P<whole>\d+) \| (?P<depth> *)(?P<module>\S+)")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure start-up times.")
    parser.add_argument("--times", type=int, default=20)
    times = parser.parse_args().times
    for name, arguments in COMMANDS.items():
        milliseconds = statistics.median(_run(arguments) for _ in range(times)) * 1e3
        slowest = ", ".join(f"{module} {spent:.0f}" for module, spent in _slowest(arguments))
        print(f"{name:<16} {milliseconds:5.0f} ms   {slowest}")


def _run(arguments: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _slowest(arguments: list[str]) -> list[tuple[str, float]]:
    """Return the modules, of those that the program imports itself, that take longest, with milliseconds."""
    command = [sys.executable, "-X", "importtime", *arguments]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    found = [(match["module"], int(match["whole"]) / 1e3) for match in _LINE.finditer(told) if len(match["depth"]) <= 2]
    return sorted(found, key=lambda pair: -pair[1])[:SHOWN]


if __name__ == "__main__":
    main()
