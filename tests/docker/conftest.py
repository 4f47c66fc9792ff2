"""A real daemon, real images, and sandboxes that end themselves even if the test process does not get to."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any, Literal

import pytest

from pydantic_ai_sandbox import DockerEngine, DockerSandbox, SessionManager
from tests.docker.busybox import ensure_busybox_image, ensure_scratch_image

Transport = Literal["socket", "exec"]

IDLE = 90
"""Seconds after which a sandbox of the tests ends itself, if nobody removed it."""


@functools.cache
def _engine(transport: Literal["auto", "socket", "exec"]) -> DockerEngine:
    return DockerEngine(transport=transport)


@pytest.fixture(scope="session")
def engine() -> DockerEngine:
    """The daemon."""
    return _engine("auto")


@pytest.fixture(scope="session")
def busybox(engine: DockerEngine) -> str:
    """An image with nothing in it but a static busybox."""
    return ensure_busybox_image(engine.api())


@pytest.fixture(scope="session")
def scratch(engine: DockerEngine) -> str:
    """An image with nothing in it at all."""
    return ensure_scratch_image(engine.api())


@pytest.fixture(scope="session", params=["socket", "exec"])
def transport(request: pytest.FixtureRequest, engine: DockerEngine) -> DockerEngine:
    """The daemon, by each way to a runner."""
    return _engine(request.param)


@pytest.fixture
def make_sandbox(engine: DockerEngine) -> Generator[Callable[..., DockerSandbox]]:
    """Builds sandboxes that are removed at the end of the test."""
    made: list[DockerSandbox] = []

    def make(**options: Any) -> DockerSandbox:
        settings: dict[str, Any] = {"engine": engine, "idle_timeout": IDLE, **options}
        sandbox = DockerSandbox(**settings)
        made.append(sandbox)
        return sandbox

    yield make
    for sandbox in made:
        sandbox.stop()


@pytest.fixture
def make_python(make_sandbox: Callable[..., DockerSandbox]) -> Callable[..., DockerSandbox]:
    """Builds sandboxes that an interpreter can live in."""
    return functools.partial(make_sandbox, runtime="python-datascience")


@pytest.fixture
async def sandbox(make_sandbox: Callable[..., DockerSandbox]) -> AsyncGenerator[DockerSandbox]:
    """A fresh sandbox."""
    sandbox = make_sandbox()
    yield sandbox
    await sandbox.aclose()


@pytest.fixture
async def managers(tmp_path: Path, engine: DockerEngine) -> AsyncGenerator[Callable[..., SessionManager]]:
    """Builds managers over one root, as workers of one backend would; their sandboxes go with the test."""
    made: list[SessionManager] = []

    def build(**options: Any) -> SessionManager:
        settings: dict[str, Any] = {"workspace_root": tmp_path / "users", "idle_timeout": IDLE, **options}
        made.append(SessionManager(**settings))
        return made[-1]

    yield build
    for manager in made:
        await manager.aclose()
        for info in engine.find(manager._population.namespace_labels):
            engine.remove(info.id)
    for storage in {id(manager): manager._directories.storage for manager in made}.values():
        for path in tmp_path.glob("users*/*"):
            if path.is_dir() and not path.name.startswith("."):
                storage.delete(path)
