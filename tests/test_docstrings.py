"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch

import nl3d


def documented():
    for info in pkgutil.walk_packages(nl3d.__path__, "nl3d."):
        if info.name.endswith("__main__"):
            continue
        module = importlib.import_module(info.name)
        for test in doctest.DocTestFinder(exclude_empty=True).find(module):
            if test.examples:
                yield pytest.param(test, id=test.name)


@pytest.mark.parametrize("example", list(documented()))
def test_example(example):
    example.globs.update(torch=torch, nl3d=nl3d)
    results = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).run(example)
    assert results.failed == 0


@pytest.mark.parametrize("name", sorted(set(nl3d.__all__) - {"__version__"}))
def test_public_names_are_documented(name):
    value = getattr(nl3d, name)
    assert inspect.getdoc(value), f"nl3d.{name} has no docstring"
