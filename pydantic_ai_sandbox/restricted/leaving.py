"""Leaving an evaluation before its end: its process is killed, so that it uses no processor that nobody waits for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress

__all__ = ("Leave",)

_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has but one way to end a process


class Leave:
    """Connects whoever waits for an evaluation with the thread that has its process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: int | None = None
        self._taken = False

    def take(self) -> None:
        """Kill the process, now or as soon as there is one."""
        with self._lock:
            self._taken = True
            self._kill()

    @contextmanager
    def possible(self, process: int | None) -> Generator[None]:
        """While this lasts, the number is that process's and nobody else's; `None` is one that has ended already."""
        with self._lock:
            self._process = process
            self._kill()
        try:
            yield
        finally:
            with self._lock:
                self._process = None

    def _kill(self) -> None:
        if self._taken and self._process is not None:
            with suppress(ProcessLookupError):
                os.kill(self._process, _KILL)
