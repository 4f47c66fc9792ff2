"""Every user's sandbox, found or made by one call, from any task, worker or restart.

The engine is the only record: a container's name is the lock, its labels say whose it is, and the digest of its spec
whether it still fits. Nothing here has to survive, so nothing can go stale.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Self, TypeVar

from pydantic_ai.messages import WorkspaceRef
from pydantic_ai.workspaces import WorkspaceUnavailableError

from ..engines.base import ContainerInfo, Engine, Progress
from ..engines.docker import DockerEngine
from ..errors import SpecMismatchError
from ..lifecycle import Blueprint, Lifecycle
from ..runtimes import deferred
from ..sandbox import Sandbox
from ..spec import ContainerSpec, NetworkMode, ResourceLimits, RuntimeConfig
from .directories import UserDirectories
from .identity import check_scope, check_user_id, container_name

__all__ = ("Session", "SessionManager")

T = TypeVar("T")

_PROVIDER = "pydantic-ai-sandbox-session"


@dataclass(frozen=True, kw_only=True)
class Session:
    """One user's sandbox that exists."""

    user_id: str
    scope: str
    """Which of the user's sandboxes; `"default"` unless asked for another."""
    ref: WorkspaceRef
    running: bool
    container: str
    """The container's name."""


@dataclass(frozen=True)
class _Known:
    """A sandbox that was asked for here before, and what it is made from."""

    sandbox: Sandbox
    runtime: str | RuntimeConfig


class SessionManager:
    """Gives every user a container and a directory that stays. Building it does no I/O.

    Two managers with the same root and engine, in whatever processes, are the same: each finds the containers of the
    other. Sandboxes end by themselves when idle, whether a manager is alive or not; the directories stay.

    Args:
        workspace_root: Host directory in which every user gets one, mounted at `/workspace` in the user's sandboxes.
        default_runtime: Runtime of sandboxes for which none is named.
        engine: Where they run; by default the Docker daemon that the environment names.
        limits: What each of them may use.
        network: What each of them can reach.
        idle_timeout: Seconds without use after which one ends itself; 0: never.
        max_lifetime: Seconds after which one ends itself in any case; `None`: never.
        namespace: Keeps apart the containers of managers that share an engine; by default one for each root.
        progress: Called, from a worker thread, with events of pulling and building images.

    Raises:
        ValueError: An argument cannot be; the message says which.
    """

    def __init__(
        self,
        *,
        workspace_root: str | PathLike[str],
        default_runtime: str | RuntimeConfig = "python-minimal",
        engine: Engine | None = None,
        limits: ResourceLimits | None = None,
        network: NetworkMode = "none",
        idle_timeout: int = 1800,
        max_lifetime: int | None = None,
        namespace: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._root = Path(workspace_root).expanduser().absolute()
        self._directories = UserDirectories(self._root)
        self._runtime = default_runtime
        self._engine = engine or DockerEngine.default()
        self._namespace = namespace or hashlib.sha256(str(self._root).encode()).hexdigest()[:16]
        self._progress = progress
        self._spec = ContainerSpec(
            image="unresolved",
            workspace=self._root / "user",
            limits=limits or ResourceLimits(),
            network=network,
            idle_timeout=idle_timeout,
            max_lifetime=max_lifetime or 0,
        )
        self._sandboxes: dict[tuple[str, str], _Known] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of all sandboxes; they go on, for another worker or until they are idle for their time."""
        sandboxes, self._sandboxes = self._sandboxes, {}
        for known in sandboxes.values():
            known.sandbox.detach()

    async def get_or_create(
        self, user_id: str, *, scope: str = "default", runtime: str | RuntimeConfig | None = None
    ) -> Sandbox:
        """The user's sandbox, running; made if there is none, however many ask for it at once.

        Its `ref` names the user's session, not a container: when the container has ended, the next use starts a new one
        over the same files.

        Args:
            user_id: Whose; any text of up to 1,024 characters.
            scope: Which of the user's sandboxes, all of them over the same files: one for a conversation, say.
            runtime: What it is made from, if it is not the default.

        Raises:
            InvalidUserIdError: The id or the scope cannot be one.
            SandboxError: It cannot be made.
        """
        sandbox = self.workspace(user_id, scope=scope, runtime=runtime)
        try:
            await sandbox.start()
        except SpecMismatchError:
            await self._make_room(user_id, scope)
            await sandbox.start()
        return sandbox

    def workspace(self, user_id: str, *, scope: str = "default", runtime: str | RuntimeConfig | None = None) -> Sandbox:
        """The user's sandbox without any I/O: it starts on first use.

        Raises:
            InvalidUserIdError: The id or the scope cannot be one.
        """
        key = (check_user_id(user_id), check_scope(scope))
        known = self._sandboxes.get(key)
        if known is not None and not known.sandbox.closed and runtime in (None, known.runtime):
            return known.sandbox
        if known is not None:
            known.sandbox.detach()
        runtime = runtime or self._runtime
        self._sandboxes[key] = _Known(self._build(user_id, scope, runtime), runtime)
        return self._sandboxes[key].sandbox

    def ref(self, user_id: str, *, scope: str = "default") -> WorkspaceRef:
        """What identifies the user's session in a message history, whatever container it has at the time.

        Raises:
            InvalidUserIdError: The id or the scope cannot be one.
        """
        return WorkspaceRef(provider=_PROVIDER, id=container_name(self._namespace, user_id, scope))

    async def stop(self, user_id: str, *, scope: str | None = None) -> int:
        """Remove the user's sandboxes, or the one of that scope; the files stay. Returns how many there were."""
        found = await self._find(user_id, scope)
        for key in [key for key in self._sandboxes if key[0] == user_id and scope in (None, key[1])]:
            self._sandboxes.pop(key).sandbox.detach()
        for info in found:
            await self._submit(partial(self._engine.remove, info.id))
        return len(found)

    async def delete(self, user_id: str, *, files: bool) -> None:
        """Remove the user's sandboxes and, if `files`, for good everything in the user's directory.

        Raises:
            InvalidUserIdError: The id cannot be one.
            OSError: A file cannot be deleted.
        """
        await self.stop(user_id)
        if files:
            await self._submit(partial(self._directories.delete, user_id))

    async def list(self) -> list[Session]:
        """All sandboxes of this manager's namespace, whoever made them."""
        found = await self._submit(lambda: self._engine.find({"namespace": self._namespace}))
        return sorted((self._session(info) for info in found), key=lambda session: (session.user_id, session.scope))

    # ---

    def _build(self, user_id: str, scope: str, runtime: str | RuntimeConfig) -> Sandbox:
        blueprint = Blueprint(
            runtime=deferred(runtime),
            spec=self._spec.model_copy(update={"workspace": self._directories.path(user_id)}),
            name=container_name(self._namespace, user_id, scope),
            labels={"namespace": self._namespace, "user": user_id, "scope": scope},
            identity=self.ref(user_id, scope=scope),
            prepare=partial(self._directories.ensure, user_id),
        )
        return Sandbox(Lifecycle(self._engine, blueprint, None, self._progress))

    async def _make_room(self, user_id: str, scope: str) -> None:
        """Remove a sandbox that was made with other settings, unless something runs in it.

        Raises:
            SpecMismatchError: Something does.
        """
        for info in await self._find(user_id, scope):
            old = Sandbox(Lifecycle(self._engine, self._blueprint_of(info), _ref(self._engine, info)))
            with suppress(WorkspaceUnavailableError):
                usage = await old.usage()
                if usage.commands or usage.jobs:
                    old.detach()
                    raise SpecMismatchError(
                        f"the sandbox of {user_id!r} was made with other settings, and something runs in it: "
                        "wait for its end, or stop it"
                    )
            await old.destroy()

    @staticmethod
    def _blueprint_of(info: ContainerInfo) -> Blueprint:
        return Blueprint(runtime=info.spec.image, spec=info.spec, labels=info.labels)

    async def _find(self, user_id: str, scope: str | None) -> list[ContainerInfo]:
        labels = {"namespace": self._namespace, "user": check_user_id(user_id)}
        if scope is not None:
            labels["scope"] = check_scope(scope)
        return await self._submit(lambda: self._engine.find(labels))

    def _session(self, info: ContainerInfo) -> Session:
        return Session(
            user_id=info.labels["user"],
            scope=info.labels["scope"],
            ref=self.ref(info.labels["user"], scope=info.labels["scope"]),
            running=info.running,
            container=info.name,
        )

    async def _submit(self, call: Callable[[], T]) -> T:
        return await asyncio.shield(asyncio.wrap_future(self._engine.submit(call)))


def _ref(engine: Engine, info: ContainerInfo) -> WorkspaceRef:
    return WorkspaceRef(provider=engine.provider, id=info.id)
