"""What is found in users' files, and what is said about files that cannot be served."""

import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir

import pytest

from hopline_engine.worker.loader import Loaded, load
from hopline_engine.worker.problems import LoadError
from tests.worker.users_files import GREETING, write


@pytest.fixture(autouse=True)
def _imports_are_undone() -> Iterator[None]:
    path, modules = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        if name.startswith("hopline_file_") or str(getattr(sys.modules[name], "__file__", "")).startswith(gettempdir()):
            del sys.modules[name]


def only_error(loaded: Loaded) -> LoadError:
    (error,) = loaded.errors
    return error


def test_workflows_and_steps_of_a_file_are_found_and_compiled(tmp_path: Path) -> None:
    file = write(tmp_path, "greetings.py", GREETING)
    loaded = load([str(file)])
    assert loaded.errors == []
    assert list(loaded.steps) == ["greet"]
    found = loaded.workflows["greeting"]
    assert (found.file, found.line) == (str(file), 8)
    assert [definition.digest for definition in loaded.definitions()] == [found.definition.digest]


def test_definition_does_not_depend_on_the_folder(tmp_path: Path) -> None:
    text = """
        from hopline import Retry, step, workflow

        class Broken(Exception): ...

        @step(retry=Retry(2, on=(Broken,)))
        def once() -> int:
            return 1

        @workflow
        def one() -> int:
            return once()
    """
    digests = set()
    for folder in ("a", "b"):
        file = write(tmp_path / folder, "same_stem.py", text)
        digests.add(load([str(file)]).workflows["one"].definition.digest)
        sys.modules.pop("same_stem", None)
        sys.path.remove(str(file.parent))
    assert len(digests) == 1


def test_a_workflow_may_be_named_behind_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "named.py", GREETING)
    assert list(load([f"{file}:greeting"]).workflows) == ["greeting"]


def test_folder_gives_all_files_that_mention_hopline_and_no_tests(tmp_path: Path) -> None:
    write(tmp_path, "one_of_folder.py", GREETING)
    write(tmp_path, "test_one.py", "raise RuntimeError('hopline test file was imported')")
    write(tmp_path, "conftest.py", "raise RuntimeError('hopline conftest was imported')")
    write(tmp_path, ".hidden.py", "raise RuntimeError('hopline hidden file was imported')")
    write(tmp_path, "script.py", "raise RuntimeError('a script was imported')")
    loaded = load([str(tmp_path)])
    assert loaded.errors == []
    assert list(loaded.workflows) == ["greeting"]


def test_folder_without_workflow_files_is_an_error(tmp_path: Path) -> None:
    error = only_error(load([str(tmp_path)]))
    assert (error.code, error.file) == ("no-workflow", str(tmp_path))


def test_neighbour_is_imported_once_however_it_is_reached(tmp_path: Path) -> None:
    write(tmp_path, "shared_steps.py", GREETING.replace("from hopline", "print('imported')\n    from hopline"))
    write(
        tmp_path,
        "uses_shared.py",
        """
        import shared_steps
        from hopline import workflow

        @workflow
        def polite(name: str) -> str:
            return shared_steps.greet(name)
        """,
    )
    for order in (["shared_steps.py", "uses_shared.py"], ["uses_shared.py", "shared_steps.py"]):
        loaded = load([str(tmp_path / name) for name in order])
        assert loaded.errors == []
        assert sorted(loaded.workflows) == ["greeting", "polite"]
        assert list(loaded.steps) == ["greet"]
        for name in ("shared_steps", "uses_shared"):
            del sys.modules[name]


@pytest.fixture
def importer(tmp_path: Path) -> Path:
    """Return a file whose workflow has its step by the module that this is from."""
    write(tmp_path, "only_imported.py", GREETING)
    return write(
        tmp_path,
        "importer.py",
        """
        import only_imported
        from hopline import workflow

        @workflow
        def through(name: str) -> str:
            return only_imported.greet(name)
        """,
    )


def test_step_used_through_an_imported_module_is_served(importer: Path) -> None:
    loaded = load([str(importer)])
    assert loaded.errors == []
    assert list(loaded.steps) == ["greet"]
    assert list(loaded.workflows) == ["through"]


def test_module_that_is_marked_as_not_to_be_imported_is_passed_over(
    importer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "not_to_be_imported", None)
    assert load([str(importer)]).errors == []


def test_step_that_no_module_names_is_an_error(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "nameless.py",
        """
        from hopline import step, workflow

        def make():
            @step
            def inner() -> int:
                return 1
            return [inner]

        steps = make()

        @workflow
        def outer() -> int:
            return steps[0]()
        """,
    )
    error = only_error(load([str(file)]))
    assert (error.code, error.line) == ("step-not-found", 12)
    assert "'inner'" in error.message


def test_sub_workflow_is_among_the_definitions(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "nested.py",
        GREETING
        + """
    @workflow
    def outer(name: str) -> str:
        return greeting(name)
    """,
    )
    loaded = load([str(file)])
    assert sorted(definition.name for definition in loaded.definitions()) == ["greeting", "outer"]


def test_missing_file_is_named(tmp_path: Path) -> None:
    error = only_error(load([str(tmp_path / "nowhere.py")]))
    assert (error.code, error.file) == ("file-not-found", str(tmp_path / "nowhere.py"))


def test_other_than_regular_python_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    write(tmp_path, "notes.txt", "hopline")
    (tmp_path / "huge.py").write_bytes(b"#" * 5_000_001)
    loaded = load([str(tmp_path / name) for name in ("pipe.py", "notes.txt", "huge.py")])
    assert [error.code for error in loaded.errors] == ["not-python"] * 3


def test_syntax_error_has_line_and_text(tmp_path: Path) -> None:
    file = write(tmp_path, "broken.py", "import os\n\ndef f(:\n    pass\n")
    error = only_error(load([str(file)]))
    assert (error.code, error.file, error.line) == ("syntax-error", str(file), 3)
    assert "def f(:" in error.message


def test_syntax_error_of_an_imported_neighbour_is_located_there(tmp_path: Path) -> None:
    other = write(tmp_path, "broken_neighbour.py", "x = (\n")
    file = write(tmp_path, "fine_itself.py", "import broken_neighbour\n")
    error = only_error(load([str(file)]))
    assert (error.code, error.file, error.line) == ("syntax-error", str(other), 1)


@pytest.mark.parametrize("content", [b"x = 1\x00\n", b"x = '\xff\xfe'\n"])
def test_file_that_is_no_text_is_a_syntax_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "binary.py"
    file.write_bytes(content)
    error = only_error(load([str(file)]))
    assert (error.code, error.file) == ("syntax-error", str(file))


def test_exception_while_importing_has_the_users_line(tmp_path: Path) -> None:
    file = write(tmp_path, "raising.py", "import json\n\nVALUES = json.loads('{')\n")
    error = only_error(load([str(file)]))
    assert (error.code, error.line) == ("import-error", 3)
    assert error.message.startswith("JSONDecodeError while importing the file: ")


def test_missing_module_says_where_to_install_it(tmp_path: Path) -> None:
    file = write(tmp_path, "needs_module.py", "import os\nimport surely_not_installed.part\n")
    error = only_error(load([str(file)]))
    assert (error.code, error.line) == ("import-error", 2)
    assert error.hint == "install 'surely_not_installed' in the environment of the worker"


def test_relative_import_has_a_hint(tmp_path: Path) -> None:
    file = write(tmp_path, "relative.py", "from . import other\n")
    error = only_error(load([str(file)]))
    assert error.hint is not None
    assert "without the dot" in error.hint


@pytest.mark.parametrize("statement", ["raise SystemExit(3)", "raise KeyboardInterrupt", "exit()"])
def test_file_that_exits_when_imported_is_an_error(tmp_path: Path, statement: str) -> None:
    file = write(tmp_path, "exiting.py", f"import sys\n{statement}\n")
    error = only_error(load([str(file)]))
    assert (error.code, error.line) == ("import-error", 2)
    assert error.hint is not None
    assert "__main__" in error.hint


def test_exception_with_a_broken_message_is_still_reported(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "bad_message.py",
        """
        class Odd(Exception):
            def __str__(self):
                raise RuntimeError

        raise Odd
        """,
    )
    assert only_error(load([str(file)])).message == "Odd while importing the file"


def test_import_that_never_ends_is_cut_off_at_its_line(tmp_path: Path) -> None:
    file = write(tmp_path, "endless.py", "x = 0\nwhile True:\n    x += 1\n")
    error = only_error(load([str(file)], import_seconds=0.2))
    assert error.code == "load-timeout"
    assert error.line in {2, 3}


def test_wrong_wiring_is_a_definition_error_with_line_and_hint(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "wrong_wiring.py",
        """
        from hopline import step, workflow

        @step
        def number() -> int:
            return 1

        @workflow
        def wrong() -> int:
            if number():
                return 1
            return 2
        """,
    )
    error = only_error(load([str(file)]))
    assert (error.code, error.file, error.line) == ("definition-error", str(file), 9)
    assert error.hint


def test_exception_in_a_workflow_body_has_the_users_line(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "raising_body.py",
        """
        from hopline import workflow

        @workflow
        def wrong() -> int:
            return {}["no such key"]
        """,
    )
    error = only_error(load([str(file)]))
    assert (error.code, error.line) == ("definition-error", 5)


def test_step_whose_types_have_no_schema_is_a_definition_error(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "no_schema.py",
        """
        from hopline import step

        class Plain: ...

        @step
        def odd(value: Plain) -> int:
            return 1
        """,
    )
    error = only_error(load([str(file)]))
    assert (error.code, error.line) == ("definition-error", 6)


def test_file_without_workflow_and_step_is_an_error(tmp_path: Path) -> None:
    file = write(tmp_path, "empty.py", "VALUE = 1\n")
    error = only_error(load([str(file)]))
    assert (error.code, error.file) == ("no-workflow", str(file))


def test_same_names_in_two_files_are_an_error_that_names_both_places(tmp_path: Path) -> None:
    one = write(tmp_path, "first_of_two.py", GREETING)
    two = write(tmp_path, "second_of_two.py", GREETING)
    loaded = load([str(one), str(two)])
    assert [error.code for error in loaded.errors] == ["duplicate-name", "duplicate-name"]
    assert {(error.file, error.line) for error in loaded.errors} == {(str(two), 4), (str(two), 8)}
    assert all(str(one) in error.message for error in loaded.errors)


def test_one_bad_file_does_not_hide_the_others(tmp_path: Path) -> None:
    write(tmp_path, "good_of_mixed.py", GREETING)
    write(tmp_path, "bad_of_mixed.py", "import hopline\n1 / 0\n")
    loaded = load([str(tmp_path)])
    assert list(loaded.workflows) == ["greeting"]
    assert only_error(loaded).message == "ZeroDivisionError while importing the file: division by zero"


def test_file_named_like_a_standard_module_takes_nothing_away(tmp_path: Path) -> None:
    file = write(tmp_path, "tabnanny.py", GREETING)
    assert list(load([str(file)]).workflows) == ["greeting"]
    import tabnanny

    assert Path(tabnanny.__file__).parent == Path(os.__file__).parent


def test_file_named_like_a_module_in_use_is_loaded_beside_it(tmp_path: Path) -> None:
    import json

    file = write(tmp_path, "json.py", GREETING)
    assert list(load([str(file)]).workflows) == ["greeting"]
    assert sys.modules["json"] is json


def test_neighbour_of_another_folder_with_the_same_name_is_an_error(tmp_path: Path) -> None:
    for folder, value in (("left", 1), ("right", 2)):
        write(tmp_path / folder, "twin_settings.py", f"VALUE = {value}\n")
        write(tmp_path / folder, f"{folder}_flow.py", f"import twin_settings\n{_renamed(folder)}")
    loaded = load([str(tmp_path / "left"), str(tmp_path / "right")])
    error = only_error(loaded)
    assert (error.code, error.file, error.line) == ("module-conflict", str(tmp_path / "right" / "right_flow.py"), 1)
    assert str(tmp_path / "left" / "twin_settings.py") in error.message


def _renamed(folder: str) -> str:
    lines = [line.removeprefix("    ") for line in GREETING.strip("\n").splitlines()]
    return "\n".join(lines).replace("greet", f"{folder}_greet")


def test_proxies_of_other_libraries_are_not_asked_what_they_are(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "with_proxy.py",
        """
        class Proxy:
            @property
            def __class__(self):
                raise RuntimeError("working outside of request context")

        request = Proxy()
        """
        + GREETING.replace("\n    ", "\n        "),
    )
    assert load([str(file)]).errors == []


def test_traceback_shows_the_lines_that_were_loaded(tmp_path: Path) -> None:
    text = """
        from hopline import step
        import lines_neighbour

        @step
        def broken() -> int:
            return lines_neighbour.old()
    """
    file = write(tmp_path, "lines_of_old.py", text)
    neighbour = write(tmp_path, "lines_neighbour.py", "def old() -> int:\n    return 1 // 0  # old\n")
    broken = load([str(file)]).steps["broken"]
    file.write_text("# new\n" * 20)
    neighbour.write_text("# new\n" * 20)
    with pytest.raises(ZeroDivisionError) as caught:
        broken()
    told = "".join(traceback.format_exception(caught.value))
    assert "return lines_neighbour.old()" in told
    assert "return 1 // 0  # old" in told


def test_one_error_of_a_step_is_told_once(tmp_path: Path) -> None:
    text = """
        from hopline import step, workflow

        @step
        def untyped(value) -> int:
            return value

        @workflow
        def one() -> int:
            return untyped(1)

        @workflow
        def two() -> int:
            return untyped(2)
    """
    error = only_error(load([str(write(tmp_path, "untyped_step.py", text))]))
    assert (error.line, error.message) == (4, "untyped(): the parameter 'value' has no annotation")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("@workflow(retry=Retry(3))", "belong to the steps of a workflow"),
        ("@step(retries=3)", 'retry=Retry(3), timeout="2m"'),
        ("@step(retry=Retry())", 'write Retry(5, first="2s"'),
        ("@step(queue=Queue(max=3))", 'write Queue("erp"'),
        ("@stepp", "define 'stepp', or import it"),
    ],
)
def test_wrong_use_of_the_package_has_a_hint(tmp_path: Path, line: str, hint: str) -> None:
    text = f"from hopline import Queue, Retry, step, workflow\n\n{line}\ndef one() -> int:\n    return 1\n"
    error = only_error(load([str(write(tmp_path, "wrong_use.py", text))]))
    assert (error.code, error.line) == ("import-error", 3)
    assert hint in (error.hint or "")
