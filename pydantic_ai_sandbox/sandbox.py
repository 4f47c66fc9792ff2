"""A container you can use: engine, container and channel together as a Pydantic AI workspace."""

from __future__ import annotations

import errno
import glob
import math
import posixpath
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from os import PathLike, fspath
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic_ai.messages import WorkspaceRef
from pydantic_ai.workspaces import (
    CommandResult,
    FileEntry,
    WorkspaceCommand,
    WorkspaceOutputLimitError,
    WorkspaceTimeoutError,
    WorkspaceUnavailableError,
)

from .channel.answers import Captured, Usage
from .channel.client import RunnerClient, command_request
from .channel.multiplexer import Stream
from .channel.sinks import Flow
from .connections import SandboxConnection
from .editing import changed_since_read, replace_text
from .engines.base import ContainerInfo, Engine, Progress, UnknownContainerError
from .engines.docker.engine import DockerEngine
from .errors import ChannelError, EditError, QuotaExceededError
from .lifecycle import Blueprint, Lifecycle
from .processes import SandboxJob, SandboxStream
from .protocols import (
    BoundedText,
    ByteStream,
    CauseOfDeath,
    CommandStream,
    Edit,
    Execution,
    GlobResult,
    GrepResult,
    Job,
    JobInfo,
    TextRange,
    Written,
)
from .runtimes import deferred
from .spec import DEFAULT_UID, ContainerSpec, NetworkMode, ResourceLimits, RuntimeConfig, VolumeMount, readable_size
from .transfer import copy_from, copy_to

__all__ = ("DockerSandbox", "RunResult", "Sandbox")

T = TypeVar("T")

_MAX_READ = 256 * 1024 * 1024
"""Bytes that `read_bytes` returns at most; larger files are streamed by `copy_from`."""

_MAX_EDIT = 16 * 1024 * 1024
"""Bytes of a file that can be edited."""

_COPY_LIMIT = 1024 * 1024 * 1024

_PLACEHOLDER = "unresolved"
"""Image of a spec whose image is looked up on first use."""


@dataclass(frozen=True, kw_only=True)
class RunResult(CommandResult):
    """The result of a completed command, with how it ended."""

    cause: CauseOfDeath = "exit"
    """Why it ended; `exit_code` alone cannot tell a kill for memory from a command that exits with 137."""
    signal: str | None = None
    """Name of the signal that killed it."""
    limit: str | None = None
    """The limit that ended it, readable, when one did."""
    duration: float = 0.0
    """Seconds it took, measured in the sandbox."""


class Sandbox:
    """A computer of its own for an agent: a hardened container with files and commands.

    It is a Pydantic AI workspace backend (`WorkspaceBackend`, `SupportsCommands`, `SupportsFilesystem`,
    `SupportsRealpath`) and has the further abilities of `pydantic_ai_sandbox.protocols`. Building it does no I/O; the first
    operation creates the container, once, however many tasks come first. Paths are absolute POSIX paths in the sandbox.

    Every operation raises `WorkspaceUnavailableError` when the container is gone, `EngineUnavailableError` when the
    engine does not answer, and another `SandboxError` when it fails for a reason that lies outside the sandbox.
    """

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    # --- identity and life

    @property
    def ref(self) -> WorkspaceRef | None:
        """The container's identity: `None` until a fresh one is created, then set for good."""
        return self._lifecycle.ref

    @property
    def info(self) -> ContainerInfo | None:
        """The container and what it was made from, once it was used."""
        return self._lifecycle.info

    @property
    def engine(self) -> Engine:
        """Where it runs."""
        return self._lifecycle.engine

    @property
    def closed(self) -> bool:
        """Whether this object was closed, stopped or destroyed, and so is of no more use."""
        return self._lifecycle.ended

    @property
    def transport(self) -> str | None:
        """How it is reached (`"socket"`, `"exec"`), while it is."""
        return self._lifecycle.transport

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Create the container, or attach to it, now; any other operation does the same when it comes first."""
        await self._lifecycle.client()

    def detach(self) -> None:
        """Close the connections of this object; the container goes on, and the next use connects again."""
        self._lifecycle.detach()

    async def aclose(self) -> None:
        """Remove the container if this object created it (a persistent one is stopped), otherwise only let go of it."""
        await self._lifecycle.aclose()

    def stop(self) -> None:
        """`aclose` as a plain call, with or without a running event loop; blocks while the engine works."""
        self._lifecycle.stop()

    def dismiss(self) -> None:
        """`aclose` without waiting for it: the container is on its way out when this returns, also when this process ends."""
        self._lifecycle.dismiss()

    async def destroy(self) -> None:
        """Remove the container, whoever created it."""
        await self._lifecycle.destroy()

    async def retire(self, idle: float = 0.0) -> bool:
        """End the container, unless something runs in it or it was used in the last `idle` seconds; returns whether it ended.

        Being used and being ended exclude each other: what is asked of it at the same moment either keeps it, or finds it
        gone before it began.
        """
        return await self._do(lambda runner: runner.retire(idle))

    async def pause(self) -> None:
        """Freeze every process; operations wait until `resume`. One that is paused stays so."""
        await self._of_engine(self.engine.pause)

    async def resume(self) -> None:
        """Let a paused sandbox go on; one that is not paused does so anyway."""
        await self._of_engine(self.engine.resume)

    async def logs(self, lines: int = 100) -> str:
        """The last lines that the sandbox's own runner wrote; commands' output is not in there."""
        return await self._of_engine(partial(self.engine.logs, lines=lines))

    async def usage(self) -> Usage:
        """What it uses right now: memory, processes, processor time, disk."""
        return await self._do(lambda runner: runner.usage())

    async def working_dir(self) -> str:
        """Where commands start: absolute, symbolic links resolved."""
        client = await self._lifecycle.client()
        return _working_dir(client)

    async def _of_engine(self, call: Callable[[str], T]) -> T:
        """What the engine does with the container, without asking its runner."""
        if (info := self._lifecycle.info) is None:
            await self._lifecycle.client()
            info = self._lifecycle.info
        assert info is not None
        try:
            return await self._lifecycle.submit(lambda: call(info.id))
        except UnknownContainerError as error:
            raise WorkspaceUnavailableError(f"the sandbox is gone: {error}") from error

    async def _do(self, call: Callable[[RunnerClient], Awaitable[T]]) -> T:
        try:
            return await self._lifecycle.do(call)
        except OSError as error:
            if error.errno == errno.EDQUOT and self._quota():
                raise self._over_quota("the file was not written") from error
            raise

    # --- commands

    async def run(
        self,
        command: WorkspaceCommand,
        *,
        shell: bool = False,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        cwd: str | None = None,
        stdin: bytes | None = None,
    ) -> RunResult:
        """Run a command to its end and return all of its output.

        Args:
            command: An argv sequence, or a shell string with `shell=True`; a mismatch raises `TypeError`.
            shell: Whether `command` is a shell string.
            env: Variables laid over the sandbox's own.
            timeout: Seconds before its process tree is killed; a process that moved to a session of its own is left alone.
            cwd: Absolute directory to start in; the working directory by default.
            stdin: What to feed to its standard input, which is at EOF otherwise.

        Raises:
            WorkspaceTimeoutError: It ran into `timeout`; the error has its output so far.
            WorkspaceOutputLimitError: It printed more than `limits.output`; the error has the beginning.
            QuotaExceededError: It filled the workspace beyond its quota.
            FileNotFoundError, NotADirectoryError: `cwd` is missing or not a directory.
            ResourceExhaustedError: The sandbox has no process left to run it with.
        """
        captured = await self._capture(command, shell, env, timeout, cwd, stdin, None)
        ended = captured.ended
        stdout, stderr = _decode(captured.stdout), _decode(captured.stderr)
        if ended.cause == "disk_quota":
            raise self._over_quota("the command was stopped")
        if ended.cause == "timeout":
            raise WorkspaceTimeoutError(
                f"command timed out after {timeout:g} s; its process tree was killed", stdout=stdout, stderr=stderr
            )
        if len(captured.stdout) < captured.stdout_total or len(captured.stderr) < captured.stderr_total:
            raise _output_limit(captured, self._limits())
        return RunResult(
            exit_code=ended.exit_code,
            stdout=stdout,
            stderr=stderr,
            cause=ended.cause,
            signal=ended.signal,
            limit=self._limit(ended.cause),
            duration=ended.duration,
        )

    async def execute(
        self,
        command: WorkspaceCommand,
        *,
        shell: bool = False,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        cwd: str | None = None,
        stdin: bytes | None = None,
        spill: str | None = None,
    ) -> Execution:
        """Run a command to its end, whatever that is, keeping the beginning and the end of long output.

        Args:
            command: As for `run`.
            shell: As for `run`.
            env: As for `run`.
            timeout: As for `run`; running into it is a result.
            cwd: As for `run`.
            stdin: As for `run`.
            spill: Absolute path of a file that gets the whole output if it is too long to keep.

        Raises:
            FileNotFoundError, NotADirectoryError: `cwd` is missing or not a directory.
            ResourceExhaustedError: The sandbox has no process left to run it with.
        """
        captured = await self._capture(command, shell, env, timeout, cwd, stdin, spill)
        ended = captured.ended
        return Execution(
            exit_code=ended.exit_code,
            cause=ended.cause,
            stdout=_bounded(captured.stdout, captured.stdout_head, captured.stdout_total),
            stderr=_bounded(captured.stderr, captured.stderr_head, captured.stderr_total),
            duration=ended.duration,
            cwd=cwd or await self.working_dir(),
            signal=ended.signal,
            limit=self._limit(ended.cause),
            spilled_to=spill if captured.spilled else None,
        )

    async def _capture(
        self,
        command: WorkspaceCommand,
        shell: bool,
        env: Mapping[str, str] | None,
        timeout: float | None,
        cwd: str | None,
        stdin: bytes | None,
        spill: str | None,
    ) -> Captured:
        request = command_request(command, shell=shell, env=env, cwd=_absolute(cwd))
        _check_timeout(timeout)
        spill = _absolute(spill)

        async def call(runner: RunnerClient) -> Captured:
            # Here, because the limits are those of the container, which an attached sandbox knows only once it is there.
            limits = self._limits()
            return await runner.execute(
                request,
                timeout=timeout,
                stdin=stdin,
                keep=int(limits.output) // 2,
                stop=int(limits.output_stop),
                spill=spill,
            )

        return await self._do(call)

    @asynccontextmanager
    async def stream(
        self,
        command: WorkspaceCommand,
        *,
        shell: bool = False,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        cwd: str | None = None,
    ) -> AsyncGenerator[CommandStream]:
        """Run a command with its output as it comes and its input open; leaving the context stops it.

        A consumer that does not read makes the command wait: nothing is buffered beyond one window of 1 MiB.
        Arguments and errors are those of `execute`.
        """
        request = command_request(command, shell=shell, env=env, cwd=_absolute(cwd))
        _check_timeout(timeout)
        client = await self._lifecycle.client()
        try:
            async with client.stream(request, timeout=timeout) as (stream, flow):
                yield SandboxStream(stream, flow, cwd or _working_dir(client), self._limit)
        except ChannelError as error:
            raise await self._lifecycle.explain(client, error) from error

    async def start_job(
        self,
        command: WorkspaceCommand,
        *,
        shell: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Job:
        """Start a command in the background; it belongs to the sandbox and counts as use of it."""
        request = command_request(command, shell=shell, env=env, cwd=_absolute(cwd))
        info = await self._do(lambda runner: runner.start_job(request))
        return self.job(info.id)

    def job(self, id: str) -> Job:
        """The job of that id; whether it exists is found out on use."""
        return SandboxJob(id, self._lifecycle)

    async def jobs(self) -> Sequence[JobInfo]:
        """All jobs that run, and those that ended lately."""
        return await self._do(lambda runner: runner.jobs())

    async def kill_all(self) -> int:
        """Kill every process in the sandbox, detached ones included; returns how many there were."""
        return await self._do(lambda runner: runner.kill_all())

    # --- files

    async def read_bytes(self, path: str) -> bytes:
        """A file's content.

        Raises:
            FileNotFoundError, IsADirectoryError, PermissionError: As for any file.
            OSError: It is not a regular file, or larger than 256 MiB (use `copy_from`).
        """
        path = _path(path)
        content, _ = await self._do(lambda runner: runner.read(path, limit=_MAX_READ))
        return bytes(content)

    async def write_bytes(self, path: str, data: bytes) -> None:
        """Replace a file's content atomically, creating parents; goes through a symbolic link.

        Raises:
            IsADirectoryError, NotADirectoryError, PermissionError, OSError: As for any file; `ENOSPC` when it is full.
        """
        path = _path(path)
        await self._do(lambda runner: runner.write(path, data))

    async def read_text(self, path: str, offset: int = 1, limit: int = 2000) -> TextRange:
        """Lines `offset` (1-based) to `offset + limit - 1` of a file; only they cross the channel.

        Raises:
            FileNotFoundError, IsADirectoryError, PermissionError, OSError: As for `read_bytes`.
            ValueError: `offset` or `limit` is less than 1.
        """
        if offset < 1 or limit < 1:
            raise ValueError("offset and limit must be at least 1")
        path = _path(path)
        return await self._do(lambda runner: runner.read_text(path, offset, limit))

    async def write_text(self, path: str, content: str, *, encoding: str = "utf-8") -> None:
        """`write_bytes` of encoded text."""
        await self.write_bytes(path, content.encode(encoding))

    async def edit(
        self, path: str, old: str, new: str, *, replace_all: bool = False, expected_version: str | None = None
    ) -> Edit:
        """Replace exact text in a file, if and only if nobody changed the file meanwhile.

        Args:
            path: Absolute path of the file.
            old: The text to replace, there exactly once unless `replace_all`.
            new: The text to put there.
            replace_all: Replace every occurrence.
            expected_version: Refuse unless the file has this version (from `read_text` or an earlier edit).

        Raises:
            EditError: It does not apply; the message says why and where to look.
            FileNotFoundError, IsADirectoryError, PermissionError, OSError: As for `read_bytes` and `write_bytes`.
        """
        path = _path(path)

        async def call(runner: RunnerClient) -> Edit:
            content, version = await runner.read(path, limit=_MAX_EDIT, version=True)
            if expected_version is not None and version != expected_version:
                raise changed_since_read(path)
            replaced = replace_text(bytes(content), old, new, replace_all=replace_all)
            version, _ = await runner.write(path, replaced.content, expect=version)
            return Edit(lines=replaced.lines, content=replaced.content, version=version)

        return await self._do(call)

    async def write_version(self, path: str, data: bytes, *, expected_version: str | None = None) -> Written:
        """Replace or create a file, unless it is there with another version than the expected one.

        Raises:
            EditError: The file changed.
            IsADirectoryError, NotADirectoryError, PermissionError, OSError: As for `write_bytes`.
        """
        path = _path(path)

        async def call(runner: RunnerClient) -> Written:
            try:
                version, created = await runner.write(path, data, expect=expected_version)
            except EditError:
                # It may also be gone, which leaves nothing to lose: then it is created, if it still is.
                if await _exists(runner, path):
                    raise changed_since_read(path) from None
                version, created = await runner.write(path, data, expect="")
            return Written(created=created, version=version)

        return await self._do(call)

    async def stat(self, path: str) -> FileEntry:
        """What a path is, following symbolic links.

        Raises:
            FileNotFoundError, PermissionError, OSError: As for any file.
        """
        path = _path(path)
        found = await self._do(lambda runner: runner.stat(path))
        return FileEntry(
            name=posixpath.basename(path),
            path=path,
            is_dir=found.kind == "dir",
            size=found.size if found.kind == "file" else None,
        )

    async def list_dir(self, path: str) -> Sequence[FileEntry]:
        """The entries of a directory, sorted by name.

        Raises:
            FileNotFoundError, NotADirectoryError, PermissionError: As for any directory.
        """
        path = _path(path)
        return await self._do(lambda runner: runner.list_dir(path))

    async def make_dir(self, path: str) -> None:
        """Create a directory and its missing parents.

        Raises:
            FileExistsError, NotADirectoryError, PermissionError, OSError: As for any directory.
        """
        path = _path(path)
        await self._do(lambda runner: runner.make_dir(path))

    async def remove(self, path: str) -> None:
        """Remove a file, a symbolic link, or a directory with all that is in it.

        Raises:
            ValueError: It is the working directory or one above it.
            FileNotFoundError, PermissionError, OSError: As for any file.
        """
        path = _path(path)
        await self._do(lambda runner: runner.remove(path))

    async def exists(self, path: str) -> bool:
        """Whether a path leads to something."""
        path = _path(path)
        return await self._do(lambda runner: _exists(runner, path))

    async def realpath(self, path: str) -> str:
        """A path with every symbolic link resolved; missing components stay as they are.

        Raises:
            OSError: It leads through a loop, or a link cannot be read.
        """
        _check_path(path)
        return await self._do(lambda runner: runner.realpath(path))

    async def glob(
        self, pattern: str, root: str | None = None, *, limit: int = 100, ignore: bool = True, hidden: bool = True
    ) -> GlobResult:
        """Files under `root` (the working directory by default) whose path matches, newest first.

        Raises:
            ValueError: The pattern is malformed.
            FileNotFoundError, NotADirectoryError: `root` is.
        """
        return await self._do(
            lambda runner: runner.glob(pattern, _root(root, runner), limit=limit, ignore=ignore, hidden=hidden)
        )

    async def grep(
        self,
        pattern: str,
        path: str | None = None,
        *,
        glob: str | None = None,
        mode: Literal["files_with_matches", "content", "count"] = "files_with_matches",
        literal: bool = False,
        ignore_case: bool = False,
        context: int = 0,
        limit: int = 200,
        ignore: bool = True,
        hidden: bool = True,
    ) -> GrepResult:
        """Lines that match a regular expression (RE2 syntax) in a file or a tree, the working directory by default.

        Raises:
            ValueError: The pattern or the glob is malformed.
            FileNotFoundError: `path` does not exist.
        """
        return await self._do(
            lambda runner: runner.grep(
                pattern,
                _root(path, runner),
                glob=glob,
                mode=mode,
                literal=literal,
                ignore_case=ignore_case,
                context=context,
                limit=limit,
                ignore=ignore,
                hidden=hidden,
            )
        )

    async def copy_to(self, host_glob: str | PathLike[str], dest: str) -> list[str]:
        """Copy the host's files and directories that match `host_glob` into the sandbox's directory `dest`.

        A string is a glob pattern; a `Path` is the one file or directory of that name. Links to files are followed.
        Returns the paths of the files in the sandbox.

        Raises:
            FileNotFoundError: Nothing on the host matches.
            OSError: A file cannot be read there or written here.
        """
        dest = _path(dest)
        pattern = host_glob if isinstance(host_glob, str) else glob.escape(fspath(host_glob))
        return await self._do(lambda runner: copy_to(runner, pattern, dest))

    async def copy_from(self, src: str, host_dir: str | PathLike[str], *, limit: int = _COPY_LIMIT) -> list[Path]:
        """Copy a file or directory of the sandbox into a directory of the host, which must not be one that a sandbox mounts.

        Returns the files written. Links are not followed; `limit` bounds the bytes in all.

        Raises:
            FileNotFoundError: `src` does not exist.
            OSError: With `EFBIG`: it is larger than `limit`.
        """
        src = _path(src)
        return await self._do(lambda runner: copy_from(runner, src, Path(host_dir), limit=limit))

    # --- connections

    @asynccontextmanager
    async def dial(self, address: str | int) -> AsyncGenerator[ByteStream]:
        """Connect to something that listens in the sandbox; leaving the context closes the connection.

        It needs no network, and works without one. An open connection is use of the sandbox.

        Args:
            address: The absolute path or the abstract name (`"@name"`) of a unix socket, or a port of 127.0.0.1.

        Raises:
            ConnectionRefusedError: Nobody listens there.
            FileNotFoundError, NotADirectoryError, PermissionError, OSError: As for any path.
            ValueError: It cannot be an address.
            ResourceExhaustedError: As many connections are open as there may be.
        """
        target = _address(address)

        async def call(runner: RunnerClient) -> tuple[RunnerClient, Stream, Flow]:
            return runner, *await runner.dial(target)

        runner, stream, flow = await self._do(call)
        try:
            yield SandboxConnection(stream, flow)
        except ChannelError as error:
            raise await self._lifecycle.explain(runner, error) from error
        finally:
            stream.abandon()

    # --- limits

    def _limits(self) -> ResourceLimits:
        info = self._lifecycle.info
        return info.spec.limits if info is not None else ResourceLimits()

    def _quota(self) -> int:
        info = self._lifecycle.info
        return info.spec.disk_quota if info is not None else 0

    def _over_quota(self, what: str) -> QuotaExceededError:
        limit = self._quota()
        return QuotaExceededError(
            f"{what}: the workspace holds more than its {readable_size(limit)}; delete files before writing more",
            limit=limit,
        )

    def _limit(self, cause: CauseOfDeath) -> str | None:
        limits = self._limits()
        match cause:
            case "out_of_memory":
                return f"{readable_size(limits.memory)} of memory"
            case "too_many_processes":
                return f"{limits.pids} processes"
            case "output_limit":
                return readable_size(limits.output_stop)
            case "disk_quota":
                return f"{readable_size(self._quota())} in the workspace"
            case _:
                return None


class DockerSandbox(Sandbox):
    """A sandbox on a Docker daemon.

    Args:
        runtime: Name of a built-in runtime, or a `RuntimeConfig`; built on first use and cached.
        image: Any Linux image instead, used as it is; it needs neither Python nor a shell.
        workspace: Host directory that is mounted at `/workspace` and stays; `None`: files live and die with the container.
        volumes: Further host directories, host path → path in the sandbox, with an optional `:ro` after the latter.
        env: Variables that every command sees; nothing is inherited from this process.
        limits: What it may use.
        network: `"none"`, or `"bridge"` for an ordinary, open Docker network.
        idle_timeout: Seconds without use after which the container ends itself; 0: never.
        max_lifetime: Seconds after which it ends itself in any case; `None`: never.
        persistent: Keep the container, and what was installed into it, when this object closes; needs a `name` to be found again.
        name: Name of the sandbox: one that runs under it with the same settings is used instead of a new one.
        ref: Attach to the sandbox that this identifies; never creates one.
        oci_runtime: The daemon's OCI runtime, such as `"runsc"` for gVisor; `OCIRuntimeError` on first use if it does not work.
        allow_root: UNSAFE. Run everything as root, which is one hole in the kernel away from the host; not over host directories
            that can be written to.
        extra_caps: UNSAFE. Capabilities that root then has (`spec.GRANTABLE_CAPS`), such as `("CHOWN", "DAC_OVERRIDE")`.
        engine: The daemon; by default the one that the environment names.
        progress: Called, from a worker thread, with events of pulling and building images.

    Raises:
        ValueError: An argument cannot be; the message says which.
    """

    def __init__(
        self,
        runtime: str | RuntimeConfig = "python-minimal",
        *,
        image: str | None = None,
        workspace: str | PathLike[str] | None = None,
        volumes: Mapping[str, str] | None = None,
        env: Mapping[str, str] | None = None,
        limits: ResourceLimits | None = None,
        network: NetworkMode = "none",
        idle_timeout: int = 1800,
        max_lifetime: int | None = None,
        persistent: bool = False,
        name: str | None = None,
        ref: WorkspaceRef | None = None,
        oci_runtime: str | None = None,
        allow_root: bool = False,
        extra_caps: Sequence[str] = (),
        engine: Engine | None = None,
        progress: Progress | None = None,
    ) -> None:
        spec = ContainerSpec(
            image=image or _PLACEHOLDER,
            uid=0 if allow_root else DEFAULT_UID,
            workspace=None if workspace is None else Path(workspace).expanduser().absolute(),
            volumes=tuple(_volume(source, target) for source, target in (volumes or {}).items()),
            env=dict(env or {}),
            limits=limits or ResourceLimits(),
            network=network,
            idle_timeout=idle_timeout,
            max_lifetime=max_lifetime or 0,
            persistent=persistent,
            oci_runtime=oci_runtime,
            allow_root=allow_root,
            extra_caps=tuple(extra_caps),
        )
        blueprint = Blueprint(runtime=image or deferred(runtime), spec=spec, name=name)
        super().__init__(Lifecycle(engine or DockerEngine.default(), blueprint, ref, progress))


def _volume(source: str, target: str) -> VolumeMount:
    path, separator, mode = target.rpartition(":")
    if separator and mode in ("ro", "rw"):
        return VolumeMount(source=Path(source), target=path, read_only=mode == "ro")
    return VolumeMount(source=Path(source), target=target)


async def _exists(runner: RunnerClient, path: str) -> bool:
    try:
        await runner.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _working_dir(client: RunnerClient) -> str:
    return str(client.channel.peer.get("workdir", "/"))


def _root(path: str | None, runner: RunnerClient) -> str:
    return _working_dir(runner) if path is None else _path(path)


def _check_path(path: str) -> None:
    if not posixpath.isabs(path):
        raise ValueError(f"a path in the sandbox must be absolute, got {path!r}")
    if "\0" in path:
        raise ValueError("a path must not contain a NUL character")


def _path(path: str) -> str:
    """A path without a trailing slash, doubled slashes or `.`; `..` stays, for the kernel to follow."""
    _check_path(path)
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def _address(address: str | int) -> str | int:
    if isinstance(address, int):
        if not 0 < address < 65_536:
            raise ValueError(f"a port is a number from 1 to 65535, got {address!r}")
        return address
    if address.startswith("@"):
        return address
    return _path(address)


def _absolute(path: str | None) -> str | None:
    return None if path is None else _path(path)


def _check_timeout(timeout: float | None) -> None:
    if timeout is not None and not (math.isfinite(timeout) and timeout > 0):
        raise ValueError(f"timeout must be a positive number of seconds or None, got {timeout!r}")


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _bounded(data: bytes, head: int, total: int) -> BoundedText:
    if len(data) >= total:
        return BoundedText(head=_decode(data))
    return BoundedText(head=_decode(data[:head]), tail=_decode(data[head:]), omitted=total - len(data))


def _output_limit(captured: Captured, limits: ResourceLimits) -> WorkspaceOutputLimitError:
    total = captured.stdout_total + captured.stderr_total
    stopped = ", and was stopped" if captured.ended.cause == "output_limit" else ""
    return WorkspaceOutputLimitError(
        f"the command printed {total} bytes, more than the {readable_size(limits.output)} that are kept{stopped}: "
        "redirect its output to a file and read that",
        limit=int(limits.output),
        stdout=_decode(captured.stdout[: captured.stdout_head]),
        stderr=_decode(captured.stderr[: captured.stderr_head]),
    )
