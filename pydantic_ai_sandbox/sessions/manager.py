"""Every user's sandbox, found or made by one call, from any task, worker or restart.

The engine is the record: a container's name is the lock, its labels say whose it is, and the digest of its spec whether
it still fits. Nothing here has to survive, so nothing can go stale.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import ByteSize, TypeAdapter
from pydantic_ai.messages import WorkspaceRef

from ..engines.base import ContainerInfo, Engine, Progress, completed
from ..engines.docker.engine import DockerEngine
from ..errors import SpecMismatchError
from ..lifecycle import Blueprint, Lifecycle, filled_in
from ..runtimes import deferred
from ..sandbox import Sandbox
from ..spec import ContainerSpec, NetworkMode, ResourceLimits, RuntimeConfig
from ..trees import TreeListing
from .admission import Admission, Waiting
from .capacity import Capacity, NoRoomError
from .checkpoints import Checkpoint, Checkpoints
from .directories import UserDirectories
from .eviction import Evictor
from .files import Download, UserFiles
from .housekeeping import Housekeeper
from .identity import check_scope, check_user_id, container_name
from .making import Household, SessionMaker
from .population import Owner, Population
from .storage import Level, StorageUsage, choose_storage
from .warm import WarmPool

__all__ = ("Session", "SessionManager")

T = TypeVar("T")

_PROVIDER = "pydantic-ai-sandbox-session"

_REMEMBERED = 1_000
"""Sandboxes known here after which those that are not connected are forgotten; asking for one again makes a new object."""

_HOUSEKEEPING = 30.0
"""Seconds between looking for what was left over, and for what is to be started ahead when none was claimed."""

_CLOSING = 10.0
"""Seconds that closing a manager waits for containers that are just being started ahead."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """One user's sandbox that exists."""

    user_id: str
    scope: str
    """Which of the user's sandboxes; `"default"` unless asked for another."""
    ref: WorkspaceRef
    running: bool
    container: str
    """The container's name, which tells the user only where it was not started ahead (`sandbox-warm-…`)."""


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
        max_sessions: How many sandboxes there may be at any time, of all processes of this host together, those that were
            started ahead included; `None`: any number.
        max_sessions_per_user: How many of them may be one user's; `None`: any number.
        queue_timeout: Seconds that a request waits for room before it is refused; 0: it does not wait.
        evict_after: Seconds that a sandbox has to be idle before it is ended to make room for another.
        warm: Runtimes and how many containers of each to keep started ahead, for users who have no files yet.
        disk_quota: Bytes that a user's directory may hold, or a string such as `"2GiB"`; `None`: any number.
        require_hard_quota: Refuse to work where only the soft level of quotas is to be had.
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
        max_sessions: int | None = None,
        max_sessions_per_user: int | None = 1,
        queue_timeout: float = 60.0,
        evict_after: float = 10.0,
        warm: Mapping[str, int] | None = None,
        disk_quota: int | str | None = None,
        require_hard_quota: bool = False,
        namespace: str | None = None,
        progress: Progress | None = None,
    ) -> None:
        root = Path(workspace_root).expanduser().absolute()
        _check_limits(max_sessions, max_sessions_per_user, queue_timeout, evict_after, warm)
        self._runtime = default_runtime
        self._engine = engine or DockerEngine.default()
        self._namespace = namespace or hashlib.sha256(str(root).encode()).hexdigest()[:16]
        self._progress = progress
        self._warm = dict(warm or {})
        quota = None if disk_quota is None else int(TypeAdapter(ByteSize).validate_python(disk_quota))
        self._spec = ContainerSpec(
            image="unresolved",
            workspace=root / "user",
            limits=limits or ResourceLimits(),
            network=network,
            idle_timeout=idle_timeout,
            max_lifetime=max_lifetime or 0,
        )
        choose = partial(choose_storage, quota=quota, require_hard=require_hard_quota)
        self._directories = UserDirectories(root, choose)
        self._population = Population(self._engine, self._directories, self._namespace)
        self._evictor = Evictor(self._engine, self._population)
        refills = [partial(self._refill, runtime, count) for runtime, count in self._warm.items()]
        self._refilling = Housekeeper(refills, _HOUSEKEEPING)
        self._tidying = Housekeeper([partial(self._submit, self._tidy)], _HOUSEKEEPING)
        self._household = Household(
            engine=self._engine,
            directories=self._directories,
            population=self._population,
            capacity=Capacity(self._population, self._directories, total=max_sessions, per_user=max_sessions_per_user),
            warm=WarmPool(self._engine, self._directories, self._population, on_claim=self._refilling.call),
            admission=Admission(self._evictor, limit=max_sessions, timeout=queue_timeout, grace=evict_after),
            quota=quota,
        )
        self._checkpoints = Checkpoints(self._engine, self._directories, self._population)
        self._files = UserFiles(self._engine, self._directories)
        self._sandboxes: dict[Owner, _Known] = {}
        self._started_ahead: dict[str, tuple[ContainerSpec, float]] = {}

    async def __aenter__(self) -> Self:
        self._start_housekeeping()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let go of all sandboxes; they go on, for another worker or until they are idle for their time."""
        await self._refilling.stop()
        await self._tidying.stop()
        sandboxes, self._sandboxes = self._sandboxes, {}
        for known in sandboxes.values():
            known.sandbox.detach()

    # --- sandboxes

    async def get_or_create(
        self,
        user_id: str,
        *,
        scope: str = "default",
        runtime: str | RuntimeConfig | None = None,
        on_wait: Callable[[Waiting], None] | None = None,
    ) -> Sandbox:
        """The user's sandbox, running; made if there is none, however many ask for it at once.

        Its `ref` names the user's session, not a container: when the container has ended, the next use starts a new one
        over the same files.

        Args:
            user_id: Whose; any text of up to 1,024 characters.
            scope: Which of the user's sandboxes, all of them over the same files: one for a conversation, say.
            runtime: What it is made from, if it is not the default.
            on_wait: Told when there is no room and this request has to wait, and whenever it moves forward.

        Raises:
            InvalidUserIdError: The id or the scope cannot be one.
            CapacityError: There was no room for it in time.
            SandboxError: It cannot be made.
        """
        sandbox = self.workspace(user_id, scope=scope, runtime=runtime)
        self._start_housekeeping()
        with self._household.admission.watched(Owner(user_id, scope), on_wait):
            try:
                await sandbox.start()
            except SpecMismatchError:
                await self._replace(user_id, scope)
                await sandbox.start()
        return sandbox

    def workspace(self, user_id: str, *, scope: str = "default", runtime: str | RuntimeConfig | None = None) -> Sandbox:
        """The user's sandbox without any I/O: it starts on first use.

        Raises:
            InvalidUserIdError: The id or the scope cannot be one.
        """
        owner = Owner(check_user_id(user_id), check_scope(scope))
        known = self._sandboxes.get(owner)
        if known is not None and not known.sandbox.closed and runtime in (None, known.runtime):
            return known.sandbox
        if known is not None:
            known.sandbox.detach()
        runtime = runtime or self._runtime
        self._forget_some()
        self._sandboxes[owner] = _Known(self._build(owner, runtime), runtime)
        return self._sandboxes[owner].sandbox

    def ref(self, user_id: str, *, scope: str = "default") -> WorkspaceRef:
        """What identifies the user's session in a message history, whatever container it has at the time.

        Raises:
            InvalidUserIdError: The id or the scope cannot be one.
        """
        return WorkspaceRef(provider=_PROVIDER, id=container_name(self._namespace, user_id, scope))

    async def stop(self, user_id: str, *, scope: str | None = None) -> int:
        """Remove the user's sandboxes, or the one of that scope; the files stay. Returns how many there were.

        Raises:
            InvalidUserIdError: The id or the scope cannot be one.
        """
        check_user_id(user_id)
        for owner in [owner for owner in self._sandboxes if owner.user_id == user_id and scope in (None, owner.scope)]:
            self._sandboxes.pop(owner).sandbox.detach()
        return await self._submit(lambda: self._remove(user_id, scope))

    async def delete(self, user_id: str, *, files: bool) -> None:
        """Remove the user's sandboxes and, if `files`, for good the user's directory and its checkpoints.

        Raises:
            InvalidUserIdError: The id cannot be one.
            OSError: A file cannot be deleted.
        """
        await self.stop(user_id)
        if files:
            await self._submit(lambda: self._delete_files(user_id))

    async def list(self) -> list[Session]:
        """All sandboxes of this manager's namespace, whoever made them."""
        return await self._submit(self._sessions)

    # --- files

    async def usage(self, user_id: str) -> StorageUsage:
        """What the user's files occupy, whether a sandbox runs or not.

        Raises:
            InvalidUserIdError: The id cannot be one.
            FileNotFoundError: The user has no directory.
        """
        path = await self._submit(lambda: self._directories.path(check_user_id(user_id)))
        return await self._submit(lambda: self._directories.storage.usage(path))

    async def list_files(self, user_id: str, path: str = "") -> TreeListing:
        """The entries of a directory of the user's.

        Args:
            user_id: Whose.
            path: Relative to the user's directory, or as it is in a sandbox: `/workspace/...`.

        Raises:
            InvalidUserIdError: The id cannot be one.
            FileNotFoundError, NotADirectoryError, PermissionError: As for any directory.
        """
        return await self._files.list(check_user_id(user_id), path)

    async def upload(self, user_id: str, path: str, data: bytes | AsyncIterable[bytes]) -> int:
        """Write one of the user's files, as a whole or not at all, creating parents; returns its size in bytes.

        Args:
            user_id: Whose; the directory is made if the user has none.
            path: As for `list_files`.
            data: The content, or where it comes from.

        Raises:
            InvalidUserIdError: The id cannot be one.
            QuotaExceededError: It does not fit.
            IsADirectoryError, NotADirectoryError, PermissionError, OSError: As for any file.
        """
        return await self._files.upload(check_user_id(user_id), path, data)

    async def download(self, user_id: str, path: str) -> Download:
        """Open one of the user's files to send it: its size and, to be iterated over, its content.

        Args:
            user_id: Whose.
            path: As for `list_files`; links are followed within the user's directory.

        Raises:
            InvalidUserIdError: The id cannot be one.
            FileNotFoundError, IsADirectoryError, PermissionError: As for any file.
            OSError: It is not a regular file.
        """
        return await self._files.download(check_user_id(user_id), path)

    async def archive(
        self, user_id: str, path: str = "", *, format: Literal["tar", "tar.gz"] = "tar.gz", max_bytes: int | None = None
    ) -> AsyncIterator[bytes]:
        """The user's files as an archive that is made while it is read.

        Regular files, directories and the links that stay inside are in it; pipes, sockets, devices and links that lead
        out are not.

        Args:
            user_id: Whose.
            path: The directory to begin at, as for `list_files`.
            format: Plain, or compressed.
            max_bytes: Bytes of the plain archive after which it breaks off with `OSError`; files with holes can be huge.

        Raises:
            InvalidUserIdError: The id cannot be one.
            FileNotFoundError, NotADirectoryError: As for any directory.
        """
        return await self._files.archive(check_user_id(user_id), path, format=format, max_bytes=max_bytes)

    async def checkpoint(self, user_id: str) -> str:
        """Copy the user's directory aside; returns the copy's id.

        Processes in the user's sandboxes stand still meanwhile, so that the copy is of one moment. Blocks of files are
        shared where the file system can do that.

        Raises:
            InvalidUserIdError: The id cannot be one.
            FileNotFoundError: The user has no directory.
            OSError: There is no room for a copy.
        """
        return (await self._checkpoints.make(check_user_id(user_id))).id

    async def checkpoints(self, user_id: str) -> Sequence[Checkpoint]:
        """The user's checkpoints, oldest first.

        Raises:
            InvalidUserIdError: The id cannot be one.
        """
        return await self._submit(lambda: self._checkpoints.list(check_user_id(user_id)))

    async def restore(self, user_id: str, checkpoint: str) -> None:
        """Put a checkpoint in the place of the user's files, all at once; the user's sandboxes are ended.

        Raises:
            InvalidUserIdError: The id cannot be one.
            FileNotFoundError: The user has no such checkpoint.
        """
        await self._checkpoints.restore(check_user_id(user_id), checkpoint)

    async def delete_checkpoint(self, user_id: str, checkpoint: str) -> None:
        """Delete a checkpoint.

        Raises:
            InvalidUserIdError: The id cannot be one.
            FileNotFoundError: The user has no such checkpoint.
        """
        await self._submit(lambda: self._checkpoints.delete(check_user_id(user_id), checkpoint))

    async def fork(self, user_id: str, new_user_id: str) -> None:
        """Give a user who has no directory a copy of another's.

        Raises:
            InvalidUserIdError: One of the ids cannot be one.
            FileNotFoundError: The one has no directory.
            FileExistsError: The other has one.
        """
        await self._checkpoints.fork(check_user_id(user_id), check_user_id(new_user_id))

    async def quota_level(self) -> Level:
        """What keeps users within `disk_quota` here, found out by trying.

        Raises:
            SandboxError: It has to be a hard one, and there is none.
        """
        return await self._submit(lambda: self._directories.storage.level)

    # ---

    def _build(self, owner: Owner, runtime: str | RuntimeConfig) -> Sandbox:
        blueprint = Blueprint(
            runtime=deferred(runtime),
            spec=self._spec,
            name=container_name(self._namespace, owner.user_id, owner.scope),
            identity=self.ref(owner.user_id, scope=owner.scope),
            maker=SessionMaker(self._household, owner),
            known=partial(self._known_spec, runtime),
        )
        return Sandbox(Lifecycle(self._engine, blueprint, None, self._progress))

    def _known_spec(self, runtime: str | RuntimeConfig) -> ContainerSpec | None:
        """What containers that were started ahead for this runtime in the last round are made from."""
        found, when = self._started_ahead.get(runtime, (None, 0.0)) if isinstance(runtime, str) else (None, 0.0)
        return found if time.monotonic() - when < 2 * _HOUSEKEEPING else None

    def _forget_some(self) -> None:
        if len(self._sandboxes) >= _REMEMBERED:
            for owner in [owner for owner, known in self._sandboxes.items() if known.sandbox.transport is None]:
                del self._sandboxes[owner]

    async def _replace(self, user_id: str, scope: str) -> None:
        """End a sandbox that was made with other settings, unless something runs in it.

        Raises:
            SpecMismatchError: Something does, or it cannot be asked.
        """
        for info in await self._submit(lambda: self._population.of(user_id, scope)):
            if info.running and not await self._evictor.retire(info):
                why = "it is paused" if info.status == "paused" else "something runs in it, or it does not answer"
                raise SpecMismatchError(
                    f"the sandbox of {user_id!r} was made with other settings, and {why}; "
                    "try again later, or end it by `SessionManager.stop`"
                )

    def _remove(self, user_id: str, scope: str | None) -> int:
        found = self._population.of(user_id, None if scope is None else check_scope(scope))
        for info in found:
            self._engine.remove(info.id)
        return len(found)

    def _delete_files(self, user_id: str) -> None:
        self._checkpoints.delete_all(user_id)
        with self._directories.hold(user_id) as home:
            # Made by another worker in between: it would go on over a directory that is gone.
            self._remove(user_id, None)
            self._directories.forget(home)

    def _sessions(self) -> list[Session]:
        owned = ((info, self._population.owner(info)) for info in self._population.all())
        sessions = [self._session(info, owner) for info, owner in owned if owner is not None]
        return sorted(sessions, key=lambda session: (session.user_id, session.scope))

    def _session(self, info: ContainerInfo, owner: Owner) -> Session:
        return Session(
            user_id=owner.user_id,
            scope=owner.scope,
            ref=self.ref(owner.user_id, scope=owner.scope),
            running=info.running,
            container=info.name,
        )

    # --- chores

    def _start_housekeeping(self) -> None:
        if self._warm:
            self._refilling.start()
        self._tidying.start()

    async def _refill(self, runtime: str, count: int) -> None:
        # Users come first.
        await self._household.admission.idle()
        started = self._engine.submit(lambda: self._start_ahead(runtime, count))
        try:
            await completed(started)
        except asyncio.CancelledError:
            # Nothing is to appear after this manager was closed; but building an image may take minutes.
            await asyncio.to_thread(wait, [started], _CLOSING)
            raise

    def _start_ahead(self, runtime: str, count: int) -> None:
        config = deferred(runtime)
        found = config() if callable(config) else config
        image = self._engine.resolve_image(found, self._progress)
        spec = filled_in(self._spec, found, image)
        self._started_ahead[runtime] = spec, time.monotonic()
        spec = self._household.limited(spec)
        try:
            for _ in self._household.warm.refill(spec, count, self._household.capacity.one_more):
                pass
        except NoRoomError:
            # Users come first; there may be room in the next round.
            return

    def _tidy(self) -> None:
        self._engine.tidy(self._population.namespace_labels)
        self._household.warm.tidy()
        self._population.tidy()
        self._directories.storage.tidy()
        self._checkpoints.tidy()

    async def _submit(self, call: Callable[[], T]) -> T:
        return await completed(self._engine.submit(call))


def _check_limits(
    total: int | None, per_user: int | None, timeout: float, grace: float, warm: Mapping[str, int] | None
) -> None:
    for name, limit in (("max_sessions", total), ("max_sessions_per_user", per_user)):
        if limit is not None and limit < 1:
            raise ValueError(f"{name} must be at least 1, or None, got {limit}")
    for name, seconds in (("queue_timeout", timeout), ("evict_after", grace)):
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"{name} must be a number of seconds, at least 0, got {seconds}")
    if any(count < 0 for count in (warm or {}).values()):
        raise ValueError(f"warm maps runtimes to how many to keep, at least 0, got {dict(warm or {})}")
