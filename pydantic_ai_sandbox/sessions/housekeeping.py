"""What a manager does now and then, beside what it is asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

__all__ = ("Housekeeper",)

logger = logging.getLogger(__name__)


class Housekeeper:
    """Does rounds of chores, every so often and when told to, in a task of its own.

    A chore that fails is logged and tried again in the next round; nothing depends on any of them.
    """

    def __init__(self, chores: Sequence[Callable[[], Awaitable[object]]], interval: float) -> None:
        self._chores = chores
        self._interval = interval
        self._task: asyncio.Task[None] | None = None
        self._due: asyncio.Event | None = None

    def start(self) -> None:
        """Begin, in the running event loop; does nothing if it has begun in one that still runs."""
        if self._task is None or self._task.done() or self._task.get_loop().is_closed():
            self._due = asyncio.Event()
            self._due.set()
            self._task = asyncio.get_running_loop().create_task(self._rounds(self._due), name="sandbox-housekeeping")

    def call(self) -> None:
        """Have the next round now; may be called from any thread."""
        task, due = self._task, self._due
        if task is not None and due is not None and not task.done():
            # Where its event loop is closed meanwhile there are no more rounds.
            with suppress(RuntimeError):
                task.get_loop().call_soon_threadsafe(due.set)

    async def stop(self) -> None:
        """End it, and wait for its end if it runs in this event loop."""
        task, self._task = self._task, None
        if task is None or task.get_loop().is_closed():
            return
        if task.get_loop() is not asyncio.get_running_loop():
            task.get_loop().call_soon_threadsafe(task.cancel)
            return
        task.cancel()
        await asyncio.wait([task])

    async def _rounds(self, due: asyncio.Event) -> None:
        while True:
            # Not wait_for, which before Python 3.12 forgets that it was cancelled when the event is set in the same moment.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await due.wait()
            due.clear()
            for chore in self._chores:
                try:
                    await chore()
                except Exception:
                    logger.warning("a chore failed and is tried again later", exc_info=True)
