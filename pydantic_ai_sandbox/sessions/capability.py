"""The user's sandbox as an agent's workspace, chosen by who the run is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.messages import WorkspaceRef
from pydantic_ai.tools import AgentDepsT, RunContext
from pydantic_ai.workspaces import WorkspaceBackend

from .manager import SessionManager

__all__ = ("UserSandbox",)


def _user_id_of_deps(deps: Any) -> str:
    return deps.user_id


@dataclass
class UserSandbox(AbstractCapability[AgentDepsT]):
    """Gives every run the sandbox of the user it is for: `Agent(capabilities=[UserSandbox(manager)])`.

    A workspace ref, which comes out of a message history, is followed only if it names a session of the same user.
    """

    manager: SessionManager
    """Who makes and finds the sandboxes."""
    user_id: Callable[[AgentDepsT], str] = _user_id_of_deps
    """How to tell whose run it is; `deps.user_id` by default."""
    scope: str = "default"
    """Which of the user's sandboxes."""

    def get_workspace(self, ctx: RunContext[AgentDepsT], *, ref: WorkspaceRef | None) -> WorkspaceBackend | None:
        """The user's sandbox, or `None` if `ref` names something else."""
        sandbox = self.manager.workspace(self.user_id(ctx.deps), scope=self.scope)
        return sandbox if ref is None or ref == sandbox.ref else None
