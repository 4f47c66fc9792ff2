"""All attacks, a module for every family."""

from __future__ import annotations

from tests.attacks.families import (
    archives,
    channel,
    exhaustion,
    files,
    images,
    kernel,
    network,
    privileges,
    races,
    results,
    runner,
    tenants,
    timeouts,
    users,
)

__all__ = ("ATTACKS",)

_MODULES = (
    privileges, kernel, runner, timeouts, results, exhaustion, users, files, races, archives, network, tenants, channel,
    images,
)  # fmt: skip

ATTACKS = [attack for module in _MODULES for attack in module.family.attacks]
