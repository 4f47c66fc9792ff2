"""A container for one command."""

from __future__ import annotations

import asyncio
import os
import posixpath
from collections.abc import Mapping
from pathlib import Path

from pydantic_ai.workspaces import WorkspaceCommand

from ..engines.base import Engine, Progress
from ..runtimes import builtin_names
from ..sandbox import DockerSandbox, RunResult
from ..spec import NetworkMode, ResourceLimits, RuntimeConfig

__all__ = ("run_once",)

_GRACE = 60
"""Seconds beyond the command's timeout after which a container whose backend died ends itself."""


async def run_once(
    image_or_runtime: str | RuntimeConfig,
    command: WorkspaceCommand,
    *,
    files: Mapping[str, bytes | str | os.PathLike[str]] | None = None,
    shell: bool = False,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    timeout: float = 120.0,
    limits: ResourceLimits | None = None,
    network: NetworkMode = "none",
    oci_runtime: str | None = None,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> RunResult:
    """Run one command in a fresh, hardened container that is removed afterwards, whatever happens.

    The container is being removed when this returns; nobody has to wait for that. It ends by itself if this process dies.

    Args:
        image_or_runtime: Name of a built-in runtime, a `RuntimeConfig`, or the name of any Linux image.
        command: An argv sequence, or a shell string with `shell=True`.
        files: Files to put there before, path → content (bytes, text as UTF-8) or the `Path` of a file on the host. Relative
            paths are in the directory where the command starts.
        shell: Whether `command` is a shell string.
        stdin: What to feed to its standard input, which is at EOF otherwise.
        env: Variables that the command sees; nothing is inherited from this process.
        timeout: Seconds before the command is killed.
        limits: What the container may use.
        network: What it can reach.
        oci_runtime: The daemon's OCI runtime, such as `"runsc"` for gVisor.
        engine: The daemon; by default the one that the environment names.
        progress: Called, from a worker thread, with events of pulling and building the image.

    Raises:
        WorkspaceTimeoutError: It ran into `timeout`; the error has its output so far.
        WorkspaceOutputLimitError: It printed more than `limits.output`.
        ImageBuildError, RuntimeNotFoundError, EngineUnavailableError: There is no container to run it in.
        TypeError, ValueError: An argument cannot be.
        OSError: A file cannot be read here or written there.
    """
    is_image = isinstance(image_or_runtime, str) and image_or_runtime not in builtin_names()
    contents = await asyncio.to_thread(_contents, files or {})
    sandbox = DockerSandbox(
        "python-minimal" if is_image else image_or_runtime,
        image=str(image_or_runtime) if is_image else None,
        env=env,
        limits=limits,
        network=network,
        idle_timeout=_GRACE,
        max_lifetime=int(timeout) + 2 * _GRACE,
        oci_runtime=oci_runtime,
        engine=engine,
        progress=progress,
    )
    try:
        if contents:
            await _put(sandbox, contents)
        return await sandbox.run(command, shell=shell, stdin=stdin, timeout=timeout)
    finally:
        sandbox.dismiss()


def _contents(files: Mapping[str, bytes | str | os.PathLike[str]]) -> dict[str, bytes]:
    return {path: _content(content) for path, content in files.items()}


def _content(content: bytes | str | os.PathLike[str]) -> bytes:
    if isinstance(content, str):
        return content.encode()
    return content if isinstance(content, bytes) else Path(content).read_bytes()


async def _put(sandbox: DockerSandbox, contents: Mapping[str, bytes]) -> None:
    start = await sandbox.working_dir()
    for path, content in contents.items():
        await sandbox.write_bytes(posixpath.join(start, path), content)
