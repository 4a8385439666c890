"""Every example in a docstring of the three packages does what it says."""

from __future__ import annotations

import doctest
import importlib

import pytest

from testkit.layout import module_names


@pytest.mark.parametrize("name", module_names())
def test_examples_in_docstrings_are_true(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples in {name} failed; see the output above"
