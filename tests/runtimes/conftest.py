"""Sandboxes of the built-in runtimes, as closed as they are by default."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from pydantic_ai_sandbox import DockerSandbox

IDLE = 120

Open = Callable[[str], AbstractAsyncContextManager[DockerSandbox]]


@pytest.fixture
def sandbox_of() -> Open:
    """Makes a sandbox of a runtime."""

    @asynccontextmanager
    async def sandbox_of(runtime: str) -> AsyncGenerator[DockerSandbox]:
        async with DockerSandbox(runtime, idle_timeout=IDLE) as sandbox:
            yield sandbox

    return sandbox_of
