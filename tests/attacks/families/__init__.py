"""All attacks, a module for every family."""

from __future__ import annotations

from tests.attacks.families import privileges

__all__ = ("ATTACKS",)

ATTACKS = [attack for module in (privileges,) for attack in module.family.attacks]
