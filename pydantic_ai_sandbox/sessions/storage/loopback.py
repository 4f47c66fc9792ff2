"""Users' directories as file systems of their own, each in an image of fixed size: full is full, in bytes and in files."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ...errors import SandboxError
from .base import MANAGER_FOLDER, Level, StorageUsage
from .mounting import grow, is_mounted, make_image, mount, unmount, view
from .plain import PlainStorage

__all__ = ("LoopbackStorage", "has_images")

_SMALLEST = 4 * 1024 * 1024
"""Bytes of the smallest image with a journal that is of any use."""

_STALE = 600.0
"""Seconds after which nobody works any more on an image that was not finished."""

_OWN_INODES = 10
"""Inodes that a file system takes for itself."""

_UNMOUNTED = 0o000
"""Permissions of a directory that something is to be mounted at: nobody's files may come to lie beneath."""


def has_images(root: Path) -> bool:
    """Whether directories under a root are kept in images."""
    return any((root / MANAGER_FOLDER / "disks").glob("*.img"))


class LoopbackStorage:
    """An ext4 file system for every directory, in a sparse image that only root can mount.

    A directory that was made before there was a quota stays as it is, without one (`usage().limit` is `None`), until it is
    replaced, as by restoring a checkpoint.

    Args:
        root: Where the directories are.
        quota: Bytes of an image. A larger one than before is given to a directory when it is next mounted; a smaller one
            is not taken away from those that have more.
    """

    level: Level = "loopback"

    def __init__(self, root: Path, quota: int) -> None:
        if quota < _SMALLEST:
            raise SandboxError(f"a file system of its own takes a quota of at least {_SMALLEST} bytes, got {quota}")
        self._root = root
        self._own = root / MANAGER_FOLDER
        self._quota = quota
        self._plain = PlainStorage(root)

    def create(self, path: Path, uid: int) -> None:
        if os.path.lexists(path):
            raise FileExistsError(f"{path} exists")
        image = self._image(path)
        # One without a directory is what a creation that broke off has left.
        if not image.exists():
            draft = self._draft(image)
            make_image(draft, self._quota, uid)
            draft.rename(image)
        path.mkdir(mode=_UNMOUNTED)
        self._mount(image, path)

    def open(self, path: Path) -> None:
        if is_mounted(path):
            return
        image = self._image(path)
        if image.exists():
            self._mount(image, path)
        elif self._is_mount_point(path):
            # Of a deletion that broke off.
            path.rmdir()
            raise FileNotFoundError(f"{path} was deleted")

    def move(self, source: Path, target: Path) -> None:
        target.mkdir(mode=_UNMOUNTED)
        # From here on it is the target's, also if the rest has to wait for `open`.
        self._image(source).rename(self._image(target))
        view(source, target)
        unmount(source)
        source.rmdir()

    def replace(self, path: Path, fill: Callable[[Path], object]) -> None:
        image = self._image(path)
        draft = self._draft(image)
        scratch = self._own / "mounting" / secrets.token_hex(8)
        scratch.mkdir(mode=_UNMOUNTED, parents=True)
        try:
            make_image(draft, self._quota, path.stat().st_uid)
            mount(draft, scratch)
            try:
                fill(scratch)
            finally:
                unmount(scratch)
            _sync(draft)
            if is_mounted(path):
                unmount(path)
                draft.rename(image)
            else:
                draft.rename(image)
                self._plain.delete(path)
                path.mkdir(mode=_UNMOUNTED)
            self._mount(image, path)
        finally:
            draft.unlink(missing_ok=True)
            scratch.rmdir()

    def delete(self, path: Path) -> bool:
        if not os.path.lexists(path):
            return False
        image = self._image(path)
        if not image.exists() and not self._is_mount_point(path):
            return self._plain.delete(path)
        # First what could come back; what is mounted goes with its last user.
        image.unlink(missing_ok=True)
        if is_mounted(path):
            unmount(path)
        path.rmdir()
        return True

    def usage(self, path: Path) -> StorageUsage:
        if not self._image(path).exists():
            return self._plain.usage(path)
        self.open(path)
        found = os.statvfs(path)
        return StorageUsage(
            used=(found.f_blocks - found.f_bfree) * found.f_frsize,
            files=max(0, found.f_files - found.f_ffree - _OWN_INODES),
            limit=found.f_blocks * found.f_frsize,
        )

    def tidy(self) -> None:
        self._plain.tidy()
        for draft in self._disks().glob("*.draft"):
            if _age(draft) > _STALE:
                draft.unlink(missing_ok=True)
        for scratch in (self._own / "mounting").glob("*"):
            if _age(scratch) > _STALE:
                # Another process may be doing the same.
                with suppress(FileNotFoundError, SandboxError):
                    if is_mounted(scratch):
                        unmount(scratch)
                    scratch.rmdir()

    # ---

    def _disks(self) -> Path:
        folder = self._own / "disks"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder

    def _image(self, path: Path) -> Path:
        """The image of a directory; a user's has no dot in its name, and others are below one that begins with one."""
        return self._disks() / f"{'.'.join(path.relative_to(self._root).parts)}.img"

    @staticmethod
    def _draft(image: Path) -> Path:
        return image.with_suffix(f".{secrets.token_hex(8)}.draft")

    def _mount(self, image: Path, path: Path) -> None:
        if image.stat().st_size < self._quota:
            grow(image, self._quota)
        mount(image, path)

    @staticmethod
    def _is_mount_point(path: Path) -> bool:
        """Whether a directory is one of those that something is to be mounted at, mounted or not."""
        return is_mounted(path) or (path.lstat().st_mode & 0o777 == _UNMOUNTED and not any(path.iterdir()))


def _sync(image: Path) -> None:
    """Have everything on the disk before the image gets its name."""
    with image.open("rb+") as file:
        os.fsync(file.fileno())


def _age(path: Path) -> float:
    with suppress(FileNotFoundError):
        return time.time() - path.lstat().st_ctime
    return 0.0
