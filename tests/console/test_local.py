"""The console on workspaces that have none of our abilities."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic_ai.workspaces import (
    CommandResult,
    LocalWorkspaceBackend,
    WorkspaceBackend,
    WorkspaceCommand,
    WorkspaceRef,
)

from .contract import CommandContract, EditContract, FindContract, JobContract, ReadContract, WriteContract
from .known_bugs import KnownBugContract
from .over_http import OverHTTPContract


class TestCommands(CommandContract): ...


class TestRead(ReadContract): ...


class TestWrite(WriteContract): ...


class TestEdit(EditContract): ...


class TestFind(FindContract): ...


class TestJobs(JobContract): ...


class TestKnownBugs(KnownBugContract): ...


class TestOverHTTP(OverHTTPContract): ...


class CommandsOnly(WorkspaceBackend):
    """A workspace that can only run commands: Pydantic AI does the rest with the shell."""

    def __init__(self, directory: Path) -> None:
        self._local = LocalWorkspaceBackend(directory)

    @property
    def ref(self) -> WorkspaceRef:
        return self._local.ref

    async def working_dir(self) -> str:
        return await self._local.working_dir()

    async def run(
        self,
        command: WorkspaceCommand,
        *,
        shell: bool = False,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> CommandResult:
        return await self._local.run(command, shell=shell, env=env, timeout=timeout)


class TestKnownBugsWithoutFileOperations(KnownBugContract):
    @pytest.fixture
    def console_backend(self, tmp_path: Path) -> WorkspaceBackend:
        return CommandsOnly(tmp_path.resolve())
