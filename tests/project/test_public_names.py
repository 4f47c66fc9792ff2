"""What the package offers is what `__all__` says."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import pytest

import pydantic_ai_sandbox

MODULES = [
    info.name for info in pkgutil.walk_packages(pydantic_ai_sandbox.__path__, f"{pydantic_ai_sandbox.__name__}.")
]


def sort_key(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions: the order that ruff keeps."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name


def public_names(module: ModuleType) -> set[str]:
    values = vars(module).items()
    return {name for name, value in values if not name.startswith("_") and not isinstance(value, ModuleType)}


def test_every_name_of_the_package_is_in_all() -> None:
    assert public_names(pydantic_ai_sandbox) - {"annotations"} == set(pydantic_ai_sandbox.__all__)


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
