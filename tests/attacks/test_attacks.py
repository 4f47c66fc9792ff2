"""Every attack succeeds where nobody thought of it, and fails here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.attacks import families
from tests.attacks.lab import Lab
from tests.attacks.registry import Attack, outcome

pytestmark = [pytest.mark.docker, pytest.mark.attacks]


def _case(attack: Attack) -> object:
    return pytest.param(attack, id=attack.id, marks=[pytest.mark.quick] if attack.quick else [])


async def _succeeds_naively(attack: Attack, lab: Lab) -> bool:
    """Whether it does, once in three times: a busy Docker loses a command or what it printed now and then."""
    for _ in range(2):
        with suppress(Exception, pytest.fail.Exception):
            if await outcome(attack.naive, lab):
                return True
    return await outcome(attack.naive, lab)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("attack", [_case(attack) for attack in families.ATTACKS])
async def test_what_works_on_a_naive_configuration_fails_here(
    lab: Lab, ended: Callable[[str, bool, bool], None], attempt: int, attack: Attack
) -> None:
    naive = await _succeeds_naively(attack, lab)
    assert naive, "it fails on the naive side too, and so proves nothing"
    ours = await outcome(attack.ours, lab)
    ended(attack.id, naive, ours)
    assert not ours, "it succeeds"
