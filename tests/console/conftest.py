from pathlib import Path

import pytest
from pydantic_ai.workspaces import LocalWorkspaceBackend, WorkspaceBackend


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def console_backend(tmp_path: Path) -> WorkspaceBackend:
    """A workspace of somebody else's making: commands and files, none of our abilities."""
    return LocalWorkspaceBackend(tmp_path.resolve())
