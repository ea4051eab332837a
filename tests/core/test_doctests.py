"""The examples in docstrings of the core are true."""

import doctest
import importlib
import pkgutil

import pytest

from hopline_engine import core

MODULES = sorted(module.name for module in pkgutil.iter_modules(core.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_true(name: str) -> None:
    module = importlib.import_module(f"{core.__name__}.{name}")
    assert doctest.testmod(module).failed == 0
