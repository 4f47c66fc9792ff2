"""The table in SECURITY.md lists every attack, and none that there is not."""

from __future__ import annotations

from tests.attacks.families import ATTACKS
from tests.attacks.table import listed


def test_the_table_lists_exactly_the_attacks_there_are() -> None:
    assert [row[:3] for row in listed()] == [(attack.family, attack.name, attack.against) for attack in ATTACKS]


def test_all_of_them_succeed_there_and_fail_here() -> None:
    assert {row[3:] for row in listed()} == {("succeeds", "fails")}


def test_no_two_have_the_same_name() -> None:
    assert len({attack.id for attack in ATTACKS}) == len(ATTACKS)
