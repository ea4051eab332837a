"""Compile something wrong and look at what is said about it."""

import linecache
from typing import Any

import pytest

from hopline import DefinitionError, Workflow


def refused(workflow: Workflow[..., Any], match: str | None = None) -> DefinitionError:
    """Return the error of compiling *workflow*; its line is the one that ends in ``# refused``."""
    with pytest.raises(DefinitionError, match=match) as caught:
        workflow.compile()
    error = caught.value
    assert error.hint
    assert error.file is not None
    assert error.line is not None
    assert linecache.getline(error.file, error.line).rstrip().endswith("# refused"), str(error)
    return error
