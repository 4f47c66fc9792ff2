"""All attacks, a module for every family."""

from __future__ import annotations

from tests.attacks.families import exhaustion, kernel, privileges, results, runner, timeouts

__all__ = ("ATTACKS",)

ATTACKS = [attack for module in (privileges, kernel, runner, timeouts, results, exhaustion) for attack in module.family.attacks]
