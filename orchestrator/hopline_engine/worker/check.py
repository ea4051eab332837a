"""``python -m hopline_engine.worker.check PATH...``: what is in users' files, as one JSON object on stdout.

Its own process, so that the command line never imports users' code. Exits with 1 when there are errors.
"""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from hopline import Definition
from hopline_engine import clock
from hopline_engine.worker import capture
from hopline_engine.worker.loader import Loaded, load


def check(paths: Sequence[str]) -> dict[str, Any]:
    """Load *paths* and return definitions, where the workflows stand, what steps there are, and errors."""
    with capture.routed(echo=False):
        return _to_json(load(paths))


def _to_json(loaded: Loaded) -> dict[str, Any]:
    return {
        "definitions": [definition.to_json() for definition in loaded.definitions()],
        "workflows": [
            {"name": name, "digest": found.definition.digest, "file": found.file, "line": found.line}
            for name, found in loaded.workflows.items()
        ],
        "steps": [{"name": name, "signature": step.signature} for name, step in sorted(loaded.steps.items())],
        "warnings": [
            {"workflow": name, "message": message, "file": found.file, "line": found.line}
            for name, found in loaded.workflows.items()
            for message in _warnings(found.definition)
        ],
        "errors": [error.to_json() for error in loaded.errors],
    }


def _warnings(definition: Definition) -> list[str]:
    """Return what changes of the clocks do to the schedule of a workflow within a year."""
    if definition.schedule is None:
        return []
    from hopline.timing import warnings  # imports croniter

    return warnings(definition.schedule, clock.now())


def main() -> int:
    """Print the JSON; what users' files print while they are imported goes to stderr."""
    out = os.dup(1)
    os.dup2(2, 1)
    content = check(sys.argv[1:])
    with os.fdopen(out, "w", encoding="utf-8") as stdout:
        stdout.write(json.dumps(content) + "\n")
    return 1 if content["errors"] else 0


if __name__ == "__main__":
    sys.exit(main())
