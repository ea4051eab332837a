import doctest
import importlib
import pkgutil

import pytest

import hopline

MODULES = sorted(f"hopline.{module.name}" for module in pkgutil.iter_modules(hopline.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_are_true(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
