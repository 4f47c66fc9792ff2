"""A run with everything it needs: a daemon, an image, a disk, and all of it taken away again."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from pathlib import Path

from pydantic_ai_sandbox import DockerEngine
from pydantic_ai_sandbox.runtimes import deferred
from tests.docker.own_daemon import OwnDaemon

from .disk import Disk
from .supervisor import Plan, Report, Supervisor

__all__ = ("obstacle", "run")

_PROGRAMS = ("dockerd", "unshare", "mkfs.ext4", "mount")


def obstacle() -> str | None:
    """What keeps this from running here."""
    if os.geteuid() != 0:
        return "a daemon and a file system of its own need root"
    missing = [program for program in _PROGRAMS if not shutil.which(program)]
    return f"{', '.join(missing)} must be installed" if missing else None


def run(plan: Plan, keep: Path | None = None) -> Report:
    """Run it; journal and logs go to `keep` when something was wrong."""
    # A socket's path must be short, so this is not below anybody's own temporary directory.
    folder = Path(tempfile.mkdtemp(prefix="sandbox-chaos-"))
    # All of it in the daemon's folder, for its guard to clear away if this process is killed.
    daemon, disk = OwnDaemon(folder), Disk(folder)
    try:
        daemon.guard()
        daemon.start()
        _take_image(daemon)
        disk.mount()
        report = asyncio.run(Supervisor(plan, daemon, disk, folder).run())
        if report.complaints and keep is not None:
            _keep(folder, keep)
    except BaseException:
        if keep is not None:
            _keep(folder, keep)
        raise
    finally:
        disk.unmount()
        daemon.end()
    return report


def _take_image(daemon: OwnDaemon) -> None:
    """The machine's daemon has the image that workers use, or makes it."""
    engine = DockerEngine()
    runtime = deferred("python-minimal")
    image = engine.resolve_image(runtime() if callable(runtime) else runtime, None)
    daemon.load(engine.api(), image)
    engine.close()


def _keep(folder: Path, keep: Path) -> None:
    keep.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder / "logs", keep / "logs", dirs_exist_ok=True)
    for path in (folder / "journal.jsonl", folder / "log"):
        if path.exists():
            shutil.copy(path, keep)
