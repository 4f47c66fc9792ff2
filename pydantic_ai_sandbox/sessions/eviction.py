"""Ending sandboxes that nobody uses, for others that somebody asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from pydantic_ai.workspaces import WorkspaceUnavailableError

from ..channel.client import RunnerClient
from ..engines.base import ContainerInfo, Engine, UnknownContainerError, completed
from ..errors import SandboxError
from .attaching import attached
from .population import Population

__all__ = ("Evictor",)

T = TypeVar("T")

_AT_ONCE = 16
"""Sandboxes that are asked at the same time."""

_PATIENCE = 5.0
"""Seconds for one to answer; one that is frozen never does."""

_SCAN_SHARE = 10
"""Looking for something to end may take one part in so many of the time."""


class Evictor:
    """Finds the sandbox that was not used for the longest time, and has its runner end it if that is still so."""

    def __init__(self, engine: Engine, population: Population) -> None:
        self._engine = engine
        self._population = population
        self._next_scan: dict[str | None, float] = {}

    async def make_room(self, user_id: str | None, grace: float) -> bool:
        """End one sandbox, of this user or of anybody, that nothing runs in and that was idle for `grace` seconds.

        Returns whether one was ended. It looks again only after a while, so that it may be called often.
        """
        if time.monotonic() < self._next_scan.get(user_id, 0.0):
            return False
        started = time.monotonic()
        found = await self._candidates(user_id)
        waiting = [info for info in found if self._population.owner(info) is None]
        for info in waiting:
            if await self.retire(info):
                return True
        idle = await self._idle_times([info for info in found if info not in waiting])
        for seconds, info in sorted(idle, key=lambda pair: -pair[0]):
            if seconds >= grace and await self.retire(info, grace):
                return True
        longest = max((seconds for seconds, _ in idle), default=0.0)
        self._rest(user_id, max((time.monotonic() - started) * _SCAN_SHARE, min(grace - longest, 1.0)))
        return False

    def _rest(self, user_id: str | None, seconds: float) -> None:
        now = time.monotonic()
        self._next_scan = {key: when for key, when in self._next_scan.items() if when > now}
        self._next_scan[user_id] = now + seconds

    async def retire(self, info: ContainerInfo, idle: float = 0.0) -> bool:
        """End a sandbox unless something runs in it or it was used in the last `idle` seconds; returns whether it ended.

        Being used and being ended exclude each other: the runner itself decides.
        """
        if not await self._ask(info, lambda runner: runner.retire(idle)):
            return False
        await completed(self._engine.submit(partial(self._see_off, info.id)))
        return True

    def _see_off(self, id: str) -> None:
        """Wait until its place and its name are free."""
        # It ends by itself. Killed now, it could not tell its other peers that what they ask was not begun.
        give_up = time.monotonic() + _PATIENCE
        with suppress(UnknownContainerError):
            while self._engine.inspect(id).running and time.monotonic() < give_up:
                time.sleep(0.005)
        self._engine.remove(id)

    async def _candidates(self, user_id: str | None) -> list[ContainerInfo]:
        call = self._population.all if user_id is None else partial(self._population.of, user_id)
        found = await completed(self._engine.submit(call))
        return [info for info in found if info.running and info.status != "paused"]

    async def _idle_times(self, found: list[ContainerInfo]) -> list[tuple[float, ContainerInfo]]:
        limiter = asyncio.Semaphore(_AT_ONCE)

        async def ask(info: ContainerInfo) -> tuple[float, ContainerInfo] | None:
            async with limiter:
                usage = await self._ask(info, lambda runner: runner.usage())
            if usage is None or usage.commands or usage.jobs:
                return None
            return usage.idle, info

        answers = await asyncio.gather(*(ask(info) for info in found))
        return [answer for answer in answers if answer is not None]

    async def _ask(self, info: ContainerInfo, question: Callable[[RunnerClient], Awaitable[T]]) -> T | None:
        """A runner's answer; `None` if it has none, because it is gone, frozen or out of order."""
        with attached(self._engine, info) as lifecycle:
            with suppress(WorkspaceUnavailableError, SandboxError, OSError, TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    return await lifecycle.do(question)
            return None
