"""The image definitions that come with the package."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..errors import RuntimeNotFoundError
from ..spec import RuntimeConfig

__all__ = ("base_recipe", "builtin", "builtin_names", "deferred")

_PACKAGE = Path(__file__).resolve().parent


def builtin(name: str) -> RuntimeConfig:
    """The built-in runtime of that name.

    Raises:
        RuntimeNotFoundError: There is none; the message names those there are.
    """
    names = builtin_names()
    if name not in names:
        raise RuntimeNotFoundError(
            f"no built-in runtime is called {name!r}; there are: {', '.join(names)}. "
            "For one of your own pass a RuntimeConfig, for any other image use image=..."
        )
    return RuntimeConfig(name=name, dockerfile=_definitions() / name)


def deferred(runtime: str | RuntimeConfig) -> RuntimeConfig | Callable[[], RuntimeConfig]:
    """A runtime, or how to find the built-in one of that name later: its definition lies in files."""
    return partial(builtin, runtime) if isinstance(runtime, str) else runtime


def builtin_names() -> tuple[str, ...]:
    """Names of the built-in runtimes, sorted."""
    return tuple(sorted(dockerfile.parent.name for dockerfile in _definitions().glob("*/Dockerfile")))


def base_recipe() -> Path:
    """Directory with `bootstrap.sh`, which makes a base image where no registry can be reached."""
    return _definitions() / "base"


def _definitions() -> Path:
    installed = _PACKAGE / "_builtin"
    return installed if installed.is_dir() else _PACKAGE.parents[1] / "runtimes"
