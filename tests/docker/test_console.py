"""The console over a real sandbox: the same contract as on any workspace, here by way of the sandbox's own abilities."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from pydantic_ai.workspaces import WorkspaceBackend

from pydantic_ai_sandbox import DockerEngine, DockerSandbox
from tests.console.contract import CommandContract, EditContract, FindContract, JobContract, ReadContract, WriteContract
from tests.console.known_bugs import KnownBugContract
from tests.console.over_http import OverHTTPContract
from tests.docker.conftest import IDLE

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
async def console_backend(engine: DockerEngine) -> AsyncGenerator[WorkspaceBackend]:
    async with DockerSandbox(engine=engine, idle_timeout=IDLE) as sandbox:
        yield sandbox


class TestCommands(CommandContract): ...


class TestRead(ReadContract): ...


class TestWrite(WriteContract): ...


class TestEdit(EditContract): ...


class TestFind(FindContract): ...


class TestJobs(JobContract): ...


class TestKnownBugs(KnownBugContract): ...


class TestOverHTTP(OverHTTPContract): ...
