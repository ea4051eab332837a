"""The help page is there at once, and the commands behind it are where it says."""

import subprocess
import sys

import pytest

from hopline_cli.errors import ExitCode
from hopline_cli.main import NOUNS, VERBS
from tests.cli.conftest import Cli
from tests.support.waiting import WITHIN

HEAVY = {"sqlmodel", "sqlalchemy", "fastapi", "starlette", "networkx", "httpx", "rich", "uvicorn", "hopline_engine"}


def modules_after(*arguments: str) -> set[str]:
    program = (
        "import sys\n"
        "from hopline_cli.main import main\n"
        "try:\n"
        f"    main({list(arguments)!r})\n"
        "except SystemExit:\n"
        "    print('\\n'.join(name for name, module in sys.modules.items() if module), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=WITHIN, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("help", "exit-codes"), ("runs", "--help")])
def test_help_imports_nothing_that_takes_time(arguments: tuple[str, ...]) -> None:
    loaded = modules_after(*arguments)
    assert "typer" in loaded
    assert not HEAVY & {name.partition(".")[0] for name in loaded}


def test_help_page_loads_little_more_than_typer() -> None:
    loaded = modules_after("--help")
    assert len(loaded) <= 200
    assert not {"pydantic", "asyncio"} & loaded


IMPORTED_FIRST = """
import importlib, os, sys
import alembic, fastapi, httpx, jsonschema, networkx, sqlmodel, uvicorn  # once for all: they know nothing of Hopline
failed = []
for name in sys.argv[1:]:
    if (process := os.fork()) == 0:
        importlib.import_module(name)
        sys.exit()
    if os.waitpid(process, 0)[1]:
        failed.append(name)
print(failed)
"""


def test_whatever_is_imported_first_can_be() -> None:
    """Processes of other tests are copies of one that has imported everything."""
    commands = [entry.module for entry in (*VERBS.values(), *NOUNS.values())]
    places = ["hopline_engine.bootstrap", "hopline_engine.worker.serve", "hopline_engine.worker.processes"]
    program = [sys.executable, "-c", IMPORTED_FIRST, *commands, *places]
    done = subprocess.run(program, capture_output=True, text=True, timeout=WITHIN, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize("name", [*VERBS, *NOUNS])
def test_every_listed_command_has_a_help_page(cli: Cli, name: str) -> None:
    done = cli(name, "--help")
    assert done.code == 0
    assert f"Usage: hopline {name}" in done.out


def test_help_without_command_is_the_help_page(cli: Cli) -> None:
    assert cli().out == cli("--help").out


@pytest.mark.parametrize("alias, noun", [("workflow", "workflows"), ("queue", "queues")])
def test_singular_of_a_noun_works_and_is_not_listed(cli: Cli, alias: str, noun: str) -> None:
    assert cli(alias, "--help").out.replace(f"hopline {alias} ", f"hopline {noun} ") == cli(noun, "--help").out
    assert f"\n  {alias} " not in cli("--help").out


@pytest.mark.parametrize(
    "words, near", [(["quues"], "queues"), (["runs", "cancle"], "cancel"), (["workflows", "grap"], "graph")]
)
def test_mistyped_command_is_answered_with_the_nearest(cli: Cli, words: list[str], near: str) -> None:
    done = cli(*words)
    assert done.code == ExitCode.USAGE
    assert f"error[usage]: there is no command '{words[-1]}'" in done.err
    assert f"hint: did you mean {near}?" in done.err
    assert done.out == ""


def test_missing_argument_names_the_help_page(cli: Cli) -> None:
    done = cli("runs", "show")
    assert done.code == ExitCode.USAGE
    assert done.err == "error[usage]: Missing argument 'RUN'.\nhint: see hopline runs show --help\n"


def test_exit_codes_are_listed_with_their_meaning(cli: Cli) -> None:
    lines = cli("help", "exit-codes").out.splitlines()
    assert [int(line.split()[0]) for line in lines] == [0, 1, 2, 3, 4, 5, 6, 7, 130]


def test_version_is_printed(cli: Cli) -> None:
    assert cli("--version").out.startswith("hopline ")
