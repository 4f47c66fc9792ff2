"""Which storage to use, found out by trying what the host can do."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from ...errors import SandboxError
from ...spec import MANAGER_FOLDER
from ...trees import remove_tree
from .base import Storage
from .loopback import SMALLEST, LoopbackStorage, has_images
from .mounting import missing_programs, own_namespace
from .plain import PlainStorage
from .working import abandoned, at_work

__all__ = ("choose_storage",)

_PROBE = 8 * 1024 * 1024
"""Bytes of the file system that is tried."""

_proven: set[Path] = set()
"""Roots at which it was tried in this process, and works; what does not work may work later."""


def choose_storage(root: Path, quota: int | None, *, require_hard: bool) -> Storage:
    """The best storage there is for directories under a root.

    Where there are file systems of users already, nothing else is ever chosen.

    Args:
        root: Where they are.
        quota: Bytes that each may hold; `None`: any number.
        require_hard: Take nothing that the kernel does not enforce.

    Raises:
        SandboxError: There is nothing better than the soft quota and it has to be; or directories are there already that
            cannot be used without what they were made with.
    """
    obstacle = "no quota is asked for" if quota is None else _obstacle(root, quota)
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


def _obstacle(root: Path, quota: int) -> str | None:
    """What keeps this host from giving every user a file system; `None` when one was filled and was full."""
    if quota < SMALLEST:
        return f"a file system takes a quota of at least {SMALLEST} bytes, and {quota} is asked for"
    if os.geteuid() != 0:
        return "only root can mount file systems"
    if missing := missing_programs():
        return f"{', '.join(missing)} must be installed (Debian: e2fsprogs, mount)"
    if own_namespace():
        return "this process has mounts of its own that the engine does not see (systemd: PrivateTmp and the like)"
    if root not in _proven:
        if obstacle := _tried(root):
            return obstacle
        _proven.add(root)
    return None


def _tried(root: Path) -> str | None:
    own = root / MANAGER_FOLDER
    for probe in abandoned(own, "probing-*"):
        _forget(probe)
    # A root of its own: nobody takes its image for a user's.
    probe = own / f"probing-{secrets.token_hex(8)}"
    probe.mkdir(mode=0o700, parents=True)
    with at_work(probe):
        try:
            LoopbackStorage(probe, _PROBE).create(probe / "user", os.geteuid())
            return _not_full(probe / "user")
        except (OSError, SandboxError) as error:
            return str(error)
        finally:
            _forget(probe)


def _not_full(path: Path) -> str | None:
    """Write more than there is room for; returns what is wrong if that works."""
    try:
        (path / "probe").write_bytes(bytes(2 * _PROBE))
    except OSError as error:
        return None if error.errno == errno.ENOSPC else f"writing into a file system of its own failed: {error}"
    return "a file system of its own took more than it has room for"


def _forget(probe: Path) -> None:
    LoopbackStorage(probe, _PROBE).delete(probe / "user")
    remove_tree(probe.parent, probe.name)
