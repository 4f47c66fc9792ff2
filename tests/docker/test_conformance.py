"""Pydantic AI's own suite for workspace backends, whole: over both transports, and in an image that has next to nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
from pydantic_ai.messages import WorkspaceRef
from pydantic_ai.workspaces import WorkspaceBackend
from pydantic_ai.workspaces.conformance import WorkspaceBackendSuite

from pydantic_ai_sandbox import DockerEngine, DockerSandbox
from tests.docker.conftest import IDLE

pytestmark = pytest.mark.docker


class Conformance(WorkspaceBackendSuite):
    """Every optional fixture is given, so no rule is skipped."""

    @pytest.fixture
    def options(self, transport: DockerEngine) -> dict[str, object]:
        return {"engine": transport, "idle_timeout": IDLE}

    @pytest.fixture
    def made(self) -> list[DockerSandbox]:
        return []

    @pytest.fixture
    async def build(
        self, options: dict[str, object], made: list[DockerSandbox]
    ) -> AsyncGenerator[Callable[..., DockerSandbox]]:
        def build(**more: object) -> DockerSandbox:
            made.append(DockerSandbox(**{**options, **more}))  # pyright: ignore[reportArgumentType]
            return made[-1]

        yield build
        for sandbox in made:
            await sandbox.aclose()

    @pytest.fixture
    def backend(self, build: Callable[..., DockerSandbox]) -> WorkspaceBackend:
        return build()

    @pytest.fixture
    def fresh_backend(self, build: Callable[..., DockerSandbox]) -> Callable[[], WorkspaceBackend]:
        return build

    @pytest.fixture
    def attach_backend(self, build: Callable[..., DockerSandbox]) -> Callable[[WorkspaceRef], WorkspaceBackend]:
        return lambda ref: build(ref=ref)

    @pytest.fixture
    def destroy_environment(self) -> Callable[[WorkspaceBackend], Awaitable[None]]:
        async def destroy(backend: WorkspaceBackend) -> None:
            assert isinstance(backend, DockerSandbox)
            await backend.destroy()

        return destroy

    async def test_commands_run_as_a_user_that_is_not_root(self, backend: DockerSandbox) -> None:
        assert (await backend.run(["id", "-u"])).stdout.strip() == "10001"


class TestPythonMinimal(Conformance):
    """In the default runtime."""


class TestBusybox(Conformance):
    """In an image with neither Python nor coreutils."""

    @pytest.fixture
    def options(self, transport: DockerEngine, busybox: str) -> dict[str, object]:
        return {"engine": transport, "idle_timeout": IDLE, "image": busybox}
