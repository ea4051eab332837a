"""The examples in the docstrings of the command line hold."""

import doctest
import importlib
import pkgutil

import pytest

import hopline_cli

MODULES = sorted(module.name for module in pkgutil.walk_packages(hopline_cli.__path__, "hopline_cli."))


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_examples_in_docstrings_hold(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
