"""Other engines with the same workloads, each in an environment of its own, made for the occasion."""

import json
import statistics
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent

NAME, REQUIREMENT = "DBOS on SQLite", "dbos>=3.4"
SHAPES = {"W1": "ms", "W2": "steps/s", "W3": "steps/s", "W4": "ms"}


def measure(folder: Path, rounds: int, *, small: bool) -> list[dict[str, object]]:
    """Return the figures of each peer; one that cannot be installed or does not run is left out, and told of."""
    sizes = ["10", "100", "20", "5"] if small else ["100", "1000", "200", "50"]
    try:
        python = _environment(folder / "dbos", REQUIREMENT)
        command = [str(python), str(HERE / "peers_dbos.py"), str(folder / "dbos"), str(rounds), *sizes]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"left out: {NAME}: {error}", file=sys.stderr)
        return []
    found = json.loads(done.stdout.splitlines()[-1])
    figures: list[dict[str, object]] = [
        {"peer": NAME, "workload": name, "value": statistics.median(found[name]), "unit": unit, "rounds": found[name]}
        for name, unit in SHAPES.items()
    ]
    for each in figures:
        print(f"{each['peer']}: {each['workload']} {each['value']:.4g} {each['unit']}")
    return figures


def _environment(folder: Path, requirement: str) -> Path:
    """Return the Python of a new environment in which *requirement* is installed."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", requirement], check=True)
    return python
