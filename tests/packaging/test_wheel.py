"""The wheel, tested in an environment of its own: what is inside, what it brings along, that it works."""

import json
import shutil
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.packaging.conftest import ROOT, Environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PACKAGES_AT_MOST = 43
MEGABYTES_AT_MOST = 135
MODULES_AT_MOST = 250
HEAVY = {
    "alembic",
    "fastapi",
    "httpx",
    "jsonschema",
    "msgspec",
    "networkx",
    "pydantic",
    "sqlalchemy",
    "typer",
    "uvicorn",
}


def test_wheel_holds_three_typed_packages_and_nothing_else(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "hopline",
        "hopline_engine",
        "hopline_cli",
        f"hopline-{_version()}.dist-info",
    }
    assert {"hopline/py.typed", "hopline_engine/py.typed", "hopline_cli/py.typed"} <= set(names)


def test_wheel_holds_migrations_and_licence(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    migrations = {path.name for path in (ROOT / "orchestrator/hopline_engine/store/migrations").rglob("*.py")}
    assert migrations
    assert migrations <= {Path(name).name for name in names if name.startswith("hopline_engine/store/migrations/")}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_installed_packages_can_be_imported(clean: Environment) -> None:
    where = clean.run("python", "-c", "import hopline, hopline_engine, hopline_cli; print(hopline.__file__)")
    assert Path(where.strip()).is_relative_to(clean.folder)


def test_command_prints_its_version(clean: Environment) -> None:
    assert _version() in clean.run("hopline", "--version")


def test_install_stays_within_its_budget(clean: Environment) -> None:
    """Everything counts, pip, setuptools and compiled bytecode too; the size is that of ``du -sm``."""
    packages = json.loads(clean.run("pip", "list", "--format", "json", "--disable-pip-version-check"))
    blocks = sum(path.stat().st_blocks for path in clean.folder.rglob("*") if not path.is_symlink())
    assert len(packages) <= PACKAGES_AT_MOST, sorted(package["name"] for package in packages)
    assert blocks * 512 / 2**20 <= MEGABYTES_AT_MOST


def test_importing_hopline_stays_light(clean: Environment) -> None:
    modules = clean.run("python", "-c", "import hopline, sys; print(*sys.modules)").split()
    assert len(modules) <= MODULES_AT_MOST
    assert HEAVY.isdisjoint(modules)


def test_installed_command_runs_the_first_example(clean: Environment, tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples" / "folder_report.py", tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("three short words\n")
    output = clean.run("hopline", "run", "folder_report.py", "folder=notes", "--json", cwd=tmp_path)
    assert json.loads(output)["result"]["summary"]["words"] == 3
    assert "| a.txt | 1 | 3 |" in (tmp_path / "report.md").read_text()


def _version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])
