"""What an attack is: something hostile, tried first where it works and then here."""

from __future__ import annotations

import errno
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.attacks.lab import Lab
from tests.attacks.probing import Tried

__all__ = ("Attack", "Family")

Side = Callable[[Lab], bool | Awaitable[bool]]
"""Tries an attack on one of the two sides; returns whether it succeeded. What it fails by is asserted there."""

DEFAULT = "`docker run`, `docker exec`"
UNCONFINED = "… with `seccomp=unconfined`"


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One case."""

    family: str
    name: str
    """What the attacker does, as the rest of a sentence that begins with them."""
    against: str
    """The naive configuration or code that it succeeds against."""
    naive: Side
    ours: Side
    quick: bool = False
    """Whether it belongs to the part that every test run holds against."""

    @property
    def id(self) -> str:
        return f"{self.family}: {self.name}"


@dataclass
class Family:
    """The attacks of one kind, in the order of the table."""

    name: str
    attacks: list[Attack] = field(default_factory=list[Attack])

    def pair(self, name: str, *, against: str, naive: Side, ours: Side, quick: bool = False) -> None:
        """Add an attack that each side tries in its own way."""
        self.attacks.append(Attack(family=self.name, name=name, against=against, naive=naive, ours=ours, quick=quick))

    def probe(
        self, name: str, body: str, walls: set[int], *, unconfined: bool = False, user: str = "", quick: bool = False
    ) -> None:
        """Add an attack that is the same Python code on both sides.

        Args:
            name: What it does.
            body: The code; it succeeds if it ends, and fails by an `OSError`.
            walls: Numbers of the errors by which it may fail here; any other is no proof.
            unconfined: Try it against a container without a seccomp profile: Docker's own stops it already.
            user: Who runs it in the naive container.
            quick: As for `Attack`.
        """

        def naive(lab: Lab) -> bool:
            tried = (lab.unconfined if unconfined else lab.plain).attempt(body, user=user)
            return _succeeded(tried, set(errno.errorcode))

        async def ours(lab: Lab) -> bool:
            return _succeeded(await lab.attempt(body), walls)

        self.pair(name, against=UNCONFINED if unconfined else DEFAULT, naive=naive, ours=ours, quick=quick)


def _succeeded(tried: Tried, walls: set[int]) -> bool:
    assert tried.error is None or tried.error in walls, f"it failed by something else: {tried}"
    return tried.error is None


async def outcome(side: Side, lab: Lab) -> bool:
    """Whether one side's attempt succeeds."""
    found = side(lab)
    return await found if inspect.isawaitable(found) else found
