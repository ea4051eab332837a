"""Writing small users' files for tests."""

import textwrap
from pathlib import Path


def write(folder: Path, name: str, text: str) -> Path:
    """Write *text*, freed of its common indentation, to the file *name* in *folder*."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")
    return path


GREETING = """
    from hopline import step, workflow

    @step
    def greet(name: str) -> str:
        return f"hello {name}"

    @workflow
    def greeting(name: str) -> str:
        return greet(name)
"""
