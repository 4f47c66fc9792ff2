"""How the figures are told."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field


@dataclass
class Report:
    """The lines of the result, and which bounds did not hold."""

    missed: list[str] = field(default_factory=list)

    def line(self, name: str, value: str, bound: str = "", holds: bool | None = None) -> None:
        """Print one figure; `holds` is `None` where it has no bound."""
        mark = {True: "ok", False: "MISS", None: ""}[holds]
        print(f"{mark:<5}{name:<62}{value:<30}{bound}", flush=True)
        if holds is False:
            self.missed.append(name)

    def finish(self) -> int:
        """The exit status."""
        if self.missed:
            print("missed: " + "; ".join(self.missed))
        return 1 if self.missed else 0


async def in_turns(rounds: int, *actions: Callable[[], Awaitable[object]]) -> list[float]:
    """The median seconds of each action, all of them done once in every round, after one round that does not count."""
    times: list[list[float]] = [[] for _ in actions]
    for number in range(rounds + 1):
        for action, taken in zip(actions, times, strict=True):
            start = time.perf_counter()
            await action()
            if number:
                taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


async def in_blocks(rounds: int, *blocks: tuple[Callable[[], Awaitable[object]], int]) -> list[float]:
    """Like `in_turns`, but every turn of an action is that many repetitions, a moment after the one before."""
    times: list[list[float]] = [[] for _ in blocks]
    for _ in range(rounds):
        for (action, count), taken in zip(blocks, times, strict=True):
            await asyncio.sleep(0.1)
            await action()
            for _ in range(count):
                start = time.perf_counter()
                await action()
                taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]


def ms(seconds: float) -> str:
    """Milliseconds, readable."""
    return f"{seconds * 1000:.2f} ms"
