"""What becomes of the outcomes of attacks, in whichever process they were tried."""

from __future__ import annotations

from typing import cast

import pytest
from _pytest.terminal import TerminalReporter

from tests.attacks import table

__all__ = ("NUMBER", "OUTCOME", "Results")

NUMBER = "attacks: number"
"""Property of a test: a line to show at the end of the run."""

OUTCOME = "attacks: outcome"
"""Property of a test: an attack's name, whether it succeeded on the naive side, and whether it did here."""


class Results:
    """Gathers these properties, shows them, and writes the table if it is wanted."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._numbers: list[str] = []
        self._outcomes: dict[str, tuple[bool, bool]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        for name, value in report.user_properties:
            if name == NUMBER:
                self._numbers.append(str(value))
            elif name == OUTCOME:
                self._count(*cast("tuple[str, bool, bool]", value))

    def _count(self, attack: str, naive: bool, ours: bool) -> None:
        """The worst of several tries is what counts."""
        all_naive, any_ours = self._outcomes.get(attack, (True, False))
        self._outcomes[attack] = (all_naive and naive, any_ours or ours)

    def pytest_sessionfinish(self) -> None:
        if not self._config.getoption("attack_table", False):
            return
        missing = table.write(self._outcomes)
        if missing:
            self._numbers.append(f"the table is left as it was: {', '.join(missing)} did not end")

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        if self._outcomes:
            there, here = (sum(won) for won in zip(*self._outcomes.values(), strict=True))
            self._numbers.append(f"{len(self._outcomes)} attacks: {there} succeed on the naive side, {here} here")
        if self._numbers:
            terminalreporter.section("attacks")
            for line in self._numbers:
                terminalreporter.write_line(line)
