"""Cloud Tasks for tests: a service of its own, on free ports of this machine, that ends with the block.

def test_order_is_handled(cloud_tasks): ...

@pytest.fixture
def cloud_tasks():
    with hopline.testing.cloud_tasks() as running:
        yield running
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudTasks:
    """A running service."""

    rest: str
    """Base URL of the REST API: ``api_endpoint`` of Google's clients."""
    grpc: str
    """Host and port of the gRPC API: for ``grpc.insecure_channel``."""

    @property
    def emulator_host(self) -> str:
        """What Firebase Admin wants to find in ``CLOUD_TASKS_EMULATOR_HOST``."""
        return self.rest.removeprefix("http://")


@contextmanager
def cloud_tasks(**settings: object) -> Iterator[CloudTasks]:
    """Run the queue service on an empty store until the block ends; needs ``hopline[grpc]``.

    Keywords are settings of Hopline, as ``create_queues=True``.

    Raises:
        RuntimeError: it did not start; what it said is in the message.
    """
    with tempfile.TemporaryDirectory(prefix="hopline-") as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HOPLINE_")}
        environment |= {f"HOPLINE_{name.upper()}": str(value) for name, value in settings.items()}
        environment["HOPLINE_STATE_DIR"] = folder
        command = [sys.executable, "-m", "hopline_cli", "emulator", "start", "--grpc", "0", "--rest", "0", "--json"]
        process = subprocess.Popen(  # noqa: S603 - this interpreter
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            yield _started(process)
        finally:
            process.terminate()
            try:
                process.communicate(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def _started(process: "subprocess.Popen[str]") -> CloudTasks:
    assert process.stdout is not None
    told = ""
    for line in process.stdout:
        told += line
        if line.rstrip() == "}":
            return CloudTasks(**json.loads(told))
    _, complaint = process.communicate()
    raise RuntimeError(f"the queue service did not start: {complaint.strip()}")
