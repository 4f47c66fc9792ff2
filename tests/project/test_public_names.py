"""What the package offers is what `__all__` says."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import pydantic_ai_sandbox

MODULES = [
    info.name for info in pkgutil.walk_packages(pydantic_ai_sandbox.__path__, f"{pydantic_ai_sandbox.__name__}.")
]


def sort_key(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions: the order that ruff keeps."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name


def test_every_name_of_the_package_comes_from_where_it_is_defined() -> None:
    """They are looked up when they are used; what type checkers read, `__all__` and that agree."""
    source = ast.parse(Path(pydantic_ai_sandbox.__file__).read_text())
    [for_types] = [node for node in source.body if isinstance(node, ast.If)]
    imported = {
        alias.name: "." * node.level + (node.module or "")
        for node in for_types.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == vars(pydantic_ai_sandbox)["_HOMES"]
    assert set(imported) == set(pydantic_ai_sandbox.__all__) <= set(dir(pydantic_ai_sandbox))


def test_a_name_that_is_not_there_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match=r"'pydantic_ai_sandbox' has no attribute 'DockerSandboks'"):
        getattr(pydantic_ai_sandbox, "DockerSandboks")  # noqa: B009


@pytest.mark.parametrize("module", ["pydantic_ai_sandbox", "pydantic_ai_sandbox.cli"])
def test_pydantic_ai_is_not_imported_before_it_is_needed(module: str) -> None:
    """Its import takes longer than everything that the commands for images do, and than completion may."""
    program = f"import sys, {module}; sys.exit('pydantic_ai' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", ["pydantic_ai_sandbox", *MODULES])
def test_all_is_sorted_and_true(name: str) -> None:
    module = importlib.import_module(name)
    names = list(getattr(module, "__all__", ()))
    assert names == sorted(names, key=sort_key)
    assert len(names) == len(set(names))
    for public in names:
        assert hasattr(module, public)


def test_errors_are_offered_where_they_are_caught() -> None:
    from pydantic_ai_sandbox import errors

    assert set(errors.__all__) <= set(pydantic_ai_sandbox.__all__)
