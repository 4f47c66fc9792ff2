"""All attacks, a module for every family."""

from __future__ import annotations

from tests.attacks.families import exhaustion, files, kernel, privileges, results, runner, timeouts, users

__all__ = ("ATTACKS",)

_MODULES = (privileges, kernel, runner, timeouts, results, exhaustion, users, files)

ATTACKS = [attack for module in _MODULES for attack in module.family.attacks]
