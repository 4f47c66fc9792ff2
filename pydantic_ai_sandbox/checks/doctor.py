"""Whether sandboxes can be had here, and hold: the daemon, an image, one sandbox made for the purpose, and quotas."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

from pydantic_ai.workspaces import WorkspaceUnavailableError

from ..engines.base import Progress
from ..engines.docker.engine import DockerEngine
from ..engines.docker.facts import DaemonFacts, ImageFacts, daemon_facts, image_facts
from ..errors import EngineUnavailableError, ImageBuildError, OCIRuntimeError, RuntimeNotFoundError, SandboxError
from ..sandbox import DockerSandbox
from ..sessions import SessionManager
from ..spec import ResourceLimits
from .inside import self_check
from .results import Check, printable

__all__ = ("Examination", "examine")

_LIMITS = ResourceLimits.model_validate({"memory": "128MiB", "pids": 64, "cpus": 0.5, "workspace": "16MiB"})
"""Small, so that running into them takes moments."""

_LIMITS_OF_ANOTHER_RUNTIME = ResourceLimits.model_validate({"memory": "512MiB", "cpus": 0.5, "workspace": "16MiB"})
"""For OCI runtimes whose own threads and memory count towards a sandbox's, as gVisor's do."""

_IDLE = 120
"""Seconds after which the sandbox that is examined ends itself, if nobody lives to remove it."""

_QUOTA = 64 * 1024 * 1024
"""Bytes of the quota that is tried."""

_OLD = 90
"""Days after which an image lacks many security updates."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What to examine."""

    engine: DockerEngine
    image: str | None = None
    """Image to make the sandbox from; by default the runtime `python-minimal`."""
    oci_runtime: str | None = None
    """OCI runtime to make it with."""
    workspace_root: Path | None = None
    """Root of a `SessionManager`, to find out what holds a quota there."""
    progress: Progress | None = None
    """Told about pulling and building the image."""


async def examine(what: Examination) -> AsyncGenerator[Check]:
    """All checks, one after the other as they are made.

    Raises:
        EngineUnavailableError: The engine does not answer.
        ImageBuildError, RuntimeNotFoundError: There is no image to make a sandbox from.
    """
    facts = daemon_facts(what.engine.api())
    yield _engine(facts)
    yield _daemon(facts)
    async for check in _sandbox(what, facts):
        yield check
    yield await _quota(what)


def _engine(facts: DaemonFacts) -> Check:
    seen = f"Docker {facts.version}, API {facts.api}, kernel {facts.kernel}, cgroups v{facts.cgroups}"
    return Check(name="engine", verdict="ok", seen=printable(seen))


def _daemon(facts: DaemonFacts) -> Check:
    rootless = "rootless" if "rootless" in facts.security else "runs as root"
    mapped = "user ids mapped" if "userns" in facts.security else "user ids not mapped"
    seen = f"{rootless}, {mapped}, logs by {facts.logging} (sandboxes: local, bounded), OCI runtimes {', '.join(facts.runtimes)}"
    return Check(name="daemon", verdict="ok", seen=printable(seen))


async def _sandbox(what: Examination, facts: DaemonFacts) -> AsyncGenerator[Check]:
    sandbox = DockerSandbox(
        image=what.image,
        limits=_LIMITS_OF_ANOTHER_RUNTIME if what.oci_runtime else _LIMITS,
        idle_timeout=_IDLE,
        oci_runtime=what.oci_runtime,
        engine=what.engine,
        progress=what.progress,
    )
    try:
        started = time.monotonic()
        try:
            await sandbox.start()
        except (EngineUnavailableError, ImageBuildError, RuntimeNotFoundError):
            raise
        except (SandboxError, WorkspaceUnavailableError) as error:
            yield _did_not_start(error, what.oci_runtime)
            return
        yield _started(what.oci_runtime, time.monotonic() - started)
        assert sandbox.info is not None
        yield _image(image_facts(what.engine.api(), sandbox.info.spec.image))
        for check in await _inside(sandbox, facts):
            yield check
    finally:
        await sandbox.aclose()


async def _inside(sandbox: DockerSandbox, facts: DaemonFacts) -> tuple[Check, ...]:
    try:
        return (await self_check(sandbox, exhaust=True, addresses=_of_host(facts))).checks
    except EngineUnavailableError:
        raise
    except (SandboxError, WorkspaceUnavailableError) as error:
        return (Check(name="sandbox", verdict="fail", seen=f"it ended while it was examined: {printable(str(error))}"),)


def _did_not_start(error: Exception, oci_runtime: str | None) -> Check:
    remedy = "name one that the daemon knows, or install it" if isinstance(error, OCIRuntimeError) else ""
    name = "OCI runtime" if oci_runtime else "start"
    return Check(name=name, verdict="fail", seen=printable(str(error)), remedy=remedy)


def _started(oci_runtime: str | None, seconds: float) -> Check:
    seen = f"a sandbox was ready after {seconds:.2f} s, with the OCI runtime {oci_runtime or 'of the daemon'}"
    return Check(name="OCI runtime" if oci_runtime else "start", verdict="ok", seen=printable(seen))


def _image(facts: ImageFacts) -> Check:
    age = (time.time() - facts.created) / 86_400
    base = "" if facts.base is None else f", {facts.base} base"
    digest = facts.digests[0] if facts.digests else f"made here, {facts.id[:19]}"
    seen = printable(f"{digest}{base}, {age:.0f} days old")
    if age > _OLD:
        remedy = "build or pull it again, for the security updates since: `pydantic-ai-sandbox remove`, then `build`"
        return Check(name="image", verdict="warn", seen=seen, remedy=remedy)
    return Check(name="image", verdict="ok", seen=seen)


def _of_host(facts: DaemonFacts) -> tuple[str, ...]:
    """Addresses of the host: in the default network of containers, and where it has its way to the outside."""
    addresses = list(facts.gateways)
    for family, outside in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            try:
                # Connecting a datagram socket looks up the route; nothing is sent.
                sock.connect((outside, 53))
            except OSError:
                continue
            addresses.append(sock.getsockname()[0])
    return tuple(dict.fromkeys(addresses))


async def _quota(what: Examination) -> Check:
    name, root = "disk quota", what.workspace_root
    if root is None:
        return Check(
            name=name, verdict="skipped", seen="not asked for: --workspace-root names the directory to try it in"
        )
    manager = SessionManager(workspace_root=root, engine=what.engine, disk_quota=_QUOTA, require_hard_quota=True)
    try:
        level = await manager.quota_level()
    except (SandboxError, OSError) as error:
        remedy = "a soft quota is what there is here; a hard one takes a backend that is root, on the engine's machine"
        return Check(name=name, verdict="warn", seen=printable(str(error)), remedy=remedy)
    return Check(name=name, verdict="ok", seen=f"{level}: a file system of fixed size was filled, and was full")
