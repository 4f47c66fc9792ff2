"""What the workers occupy: looked at from outside all the time, and from inside when they are at rest."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ("Resources", "Watch", "at_rest", "grown", "resources")

MAX_DESCRIPTORS, MAX_THREADS, MAX_MEMORY = 400, 64, 500 * 1024 * 1024
"""What no worker ever has, whatever it is doing."""

_GROWTH = 48 * 1024 * 1024
"""Bytes that a worker's memory may grow by after its first tenth, however long the run: allocators keep some for good."""


@dataclass(frozen=True)
class Resources:
    """What one process has."""

    descriptors: int
    threads: int
    memory: int
    """Resident bytes."""


def resources(pid: int) -> Resources | None:
    """What a process has; `None` if it is gone."""
    process = Path(f"/proc/{pid}")
    try:
        descriptors = len(list((process / "fd").iterdir()))
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return Resources(descriptors, int(status["Threads"]), int(status["VmRSS"].split()[0]) * 1024)
    except (OSError, KeyError):
        return None


@dataclass
class Watch:
    """The most that was seen of each process, and the history of the one that lives longest."""

    peak: Resources = Resources(0, 0, 0)
    history: list[Resources] = field(default_factory=list[Resources])

    def look(self, pid: int, *, remember: bool) -> str | None:
        """Look at a process; returns what is too much."""
        now = resources(pid)
        if now is None:
            return None
        if remember:
            self.history.append(now)
        self.peak = Resources(
            max(now.descriptors, self.peak.descriptors),
            max(now.threads, self.peak.threads),
            max(now.memory, self.peak.memory),
        )
        if now.descriptors > MAX_DESCRIPTORS or now.threads > MAX_THREADS or now.memory > MAX_MEMORY:
            return f"process {pid} has {now}"
        return None

    def growth(self) -> str | None:
        """Whether the memory of the one that lives longest went on growing."""
        tenth = len(self.history) // 10
        if tenth < 3:
            return None
        early = max(sample.memory for sample in self.history[tenth : 2 * tenth])
        late = sorted(sample.memory for sample in self.history[-tenth:])[tenth // 2]
        return f"memory grew from {early} to {late} bytes" if late - early > _GROWTH else None


def at_rest(census: dict[str, Any]) -> dict[str, Counter[str]]:
    """A worker's own count, with what differs between two descriptors of the same kind left out."""
    return {
        "descriptors": Counter(target.split("[")[0].split(" ")[0] for target in census["descriptors"]),
        "threads": Counter(name.rstrip("0123456789").rstrip("-_") for name in census["threads"]),
        "tasks": Counter(task.split(" at ")[0] for task in census["tasks"]),
    }


def grown(before: dict[str, Counter[str]], after: dict[str, Counter[str]]) -> list[str]:
    """What there is more of."""
    return [
        f"{what}: {dict(more)} more than at the first rest after work"
        for what in before
        if (more := after[what] - before[what] - _ALLOWED[what])
    ]


_ALLOWED = {
    # The pool of connections to the daemon, and the threads of executors, which are made as they are needed up to a bound.
    "descriptors": Counter({"socket:": 10}),
    "threads": Counter({"docker-engine": 8, "asyncio": 32}),
    "tasks": Counter[str](),
}
