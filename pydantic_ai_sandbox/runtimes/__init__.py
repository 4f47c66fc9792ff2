"""What containers run: the built-in image definitions and the runner's binary, found in a checkout or an installed package."""

from __future__ import annotations

from .builtin import base_recipe, builtin, builtin_names, deferred
from .progress import BuildProgress
from .runner import runner_binary, runner_version

__all__ = ("BuildProgress", "base_recipe", "builtin", "builtin_names", "deferred", "runner_binary", "runner_version")
