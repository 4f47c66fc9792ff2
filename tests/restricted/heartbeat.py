"""How long the event loop was ever kept from anything else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Heart:
    """Beats every few milliseconds while the event loop is free."""

    latest: float = 0.0
    """Seconds by which the worst beat was late."""
    beats: int = 0

    async def beat(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            self.latest = max(self.latest, time.perf_counter() - before - 0.005)
            self.beats += 1


@asynccontextmanager
async def heartbeat() -> AsyncGenerator[Heart]:
    heart = Heart()
    task = asyncio.create_task(heart.beat())
    try:
        yield heart
        await asyncio.sleep(0)
    finally:
        task.cancel()
