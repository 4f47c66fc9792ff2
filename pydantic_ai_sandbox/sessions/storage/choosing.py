"""Which storage to use, found out by trying what the host can do."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from ...errors import SandboxError
from .base import MANAGER_FOLDER, Storage
from .loopback import LoopbackStorage, has_images
from .mounting import missing_programs
from .plain import PlainStorage

__all__ = ("choose_storage",)

_PROBE = 8 * 1024 * 1024
"""Bytes of the file system that is tried."""


def choose_storage(root: Path, quota: int | None, *, require_hard: bool) -> Storage:
    """The best storage there is for directories under a root.

    Args:
        root: Where they are.
        quota: Bytes that each may hold; `None`: any number.
        require_hard: Take nothing that the kernel does not enforce.

    Raises:
        SandboxError: There is nothing better than the soft quota and it has to be; or directories are there already that
            cannot be used without what they were made with.
    """
    obstacle = "no quota is asked for" if quota is None else _obstacle(root)
    if obstacle is None:
        assert quota is not None
        return LoopbackStorage(root, quota)
    if has_images(root):
        raise SandboxError(
            f"directories in {root} are file systems of their own, and cannot be used as plain ones: {obstacle}. "
            "Pass a disk_quota, as whoever made them did, and be root"
        )
    if quota is not None and require_hard:
        raise SandboxError(f"no quota that the kernel enforces can be had: {obstacle}")
    return PlainStorage(root, quota)


def _obstacle(root: Path) -> str | None:
    """What keeps this host from giving every user a file system; `None` when one was filled and was full."""
    if os.geteuid() != 0:
        return "only root can mount file systems"
    if missing := missing_programs():
        return f"{', '.join(missing)} must be installed (Debian: e2fsprogs, mount)"
    storage = LoopbackStorage(root, _PROBE)
    path = root / MANAGER_FOLDER / f"probing-{secrets.token_hex(8)}"
    try:
        storage.create(path, os.getuid())
        return _not_full(path)
    except SandboxError as error:
        return str(error)
    finally:
        storage.delete(path)


def _not_full(path: Path) -> str | None:
    """Write more than there is room for; returns what is wrong if that works."""
    try:
        (path / "probe").write_bytes(bytes(2 * _PROBE))
    except OSError as error:
        return None if error.errno == errno.ENOSPC else f"writing into a file system of its own failed: {error}"
    return "a file system of its own took more than it has room for"
