"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ("Check", "SelfCheck", "Verdict", "printable", "worst")

Verdict: TypeAlias = Literal["ok", "warn", "fail", "skipped"]
"""`"ok"`: the wall stands. `"warn"`: it was left out on purpose, or is weaker than it could be. `"fail"`: it does not stand.
`"skipped"`: nobody could tell; `seen` says why."""

_SERIOUSNESS: dict[Verdict, int] = {"ok": 0, "skipped": 1, "warn": 2, "fail": 3}

_LONGEST = 300
"""Characters of a container's words that are shown."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One wall, tried."""

    name: str
    """Which, in words that stay the same."""
    verdict: Verdict
    seen: str
    """What happened, for people; may quote what a container said, bounded and made printable."""
    remedy: str = ""
    """What to do about it; empty when there is nothing to do."""


@dataclass(frozen=True, kw_only=True)
class SelfCheck:
    """Everything that was checked of one sandbox."""

    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        """The most serious of all."""
        return worst(self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The walls that do not stand."""
        return tuple(check for check in self.checks if check.verdict == "fail")

    def __getitem__(self, name: str) -> Check:
        """The check of that name.

        Raises:
            KeyError: There is none.
        """
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(name)


def worst(checks: tuple[Check, ...]) -> Verdict:
    """The most serious verdict of some checks."""
    verdict: Verdict = "skipped" if not checks else "ok"
    for check in checks:
        if _SERIOUSNESS[check.verdict] > _SERIOUSNESS[verdict]:
            verdict = check.verdict
    return verdict


def printable(text: str) -> str:
    """A container's words for a terminal: bounded, on one line, whatever could steer the terminal or its reader escaped."""
    shown = text[:_LONGEST] + ("…" if len(text) > _LONGEST else "")
    return "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in shown)
