"""Where a tool works: the run's workspace, and what else the object underneath can do.

The abilities of `pydantic_ai_sandbox.protocols` are looked for on the backend itself, which is only safe when nothing
stands between it and the run. A wrapper (`ReadOnlyWorkspace`, `AuthorityWorkspace`, a durable engine's, anybody's own)
may refuse, record or redirect the operations of the frozen protocol, and an ability called past it would escape that.
So: abilities count only if every layer is exactly `Workspace`, which adds no policy; otherwise the console uses the
frozen protocol, through the outermost layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_ai.exceptions import UserError
from pydantic_ai.tools import RunContext
from pydantic_ai.workspaces import Workspace, WorkspaceBackend
from pydantic_ai.workspaces.unavailable import NO_WORKSPACE

__all__ = ("Place", "find_place")


_NO_WORKSPACE = (
    "The console tools have no workspace to work in. Pass one to the run (`agent.run(..., workspace=DockerSandbox())`), "
    "add a capability that supplies one (`capabilities=[UserSandbox(manager)]`), or give the run's `deps` an attribute "
    "`backend` that is one (`deps=Deps(backend=DockerSandbox())`)."
)


@dataclass(frozen=True)
class Place:
    """A workspace to work in."""

    workspace: Workspace
    """For the operations every workspace has."""
    backend: object
    """The object to look for abilities on; `None` when a wrapper stands before it."""


def find_place(ctx: RunContext[Any]) -> Place:
    """The run's workspace, else `ctx.deps.backend`.

    Raises:
        UserError: There is neither.
    """
    workspace = ctx.workspace if ctx.workspace.attached else _from_deps(ctx.deps)
    if workspace is None:
        if ctx.workspace.backend is NO_WORKSPACE:
            raise UserError(_NO_WORKSPACE)
        workspace = ctx.workspace  # somebody chose an unavailable one, and it says why
    return Place(workspace, _unwrapped(workspace))


def _from_deps(deps: object) -> Workspace | None:
    backend = getattr(deps, "backend", None)
    if isinstance(backend, Workspace):
        return backend
    if backend is None:
        return None
    if not isinstance(backend, WorkspaceBackend):
        raise UserError(
            f"`deps.backend` is a `{type(backend).__name__}`, which is no workspace: it needs the members `ref` and `working_dir` "
            "of `pydantic_ai.workspaces.WorkspaceBackend`"
        )
    return Workspace(backend)


def _unwrapped(workspace: Workspace) -> object:
    """The backend under plain `Workspace` layers only."""
    layer: object = workspace
    while type(layer) is Workspace:
        # `Workspace.backend` would skip wrappers too, which is what must not happen here.
        layer = getattr(layer, "_backend", None)
    return None if isinstance(layer, Workspace) else layer
