"""Users' directories as file systems of their own, each in an image of fixed size: full is full, in bytes and in files."""

from __future__ import annotations

import errno
import os
import secrets
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from ...errors import SandboxError
from ...spec import MANAGER_FOLDER
from ...trees import exchange, remove_tree, rename_new, sync_folder
from .base import Level, StorageUsage
from .mounting import (
    check_image,
    grow,
    has_errors,
    is_attached,
    is_mounted,
    is_used_elsewhere,
    make_image,
    mount,
    settle,
    sync_mounted,
    unmount,
    view,
)
from .plain import PlainStorage
from .working import abandoned, alone, at_work, is_held

__all__ = ("SMALLEST", "LoopbackStorage", "has_images")

SMALLEST = 4 * 1024 * 1024
"""Bytes of the smallest image with a journal that is of any use."""

_OWN_INODES = 10
"""Inodes that a file system takes for itself, its root included."""

_START_OF_OTHERS = 2.0
"""Seconds; a container that is being started has a copy of all mounts for less than a tenth of one, on a machine at rest."""

_BARE = 0o000
"""Permissions of a directory that something is to be mounted at: nobody's files may come to lie beneath."""


def has_images(root: Path) -> bool:
    """Whether directories under a root are kept in images."""
    return any((root / MANAGER_FOLDER / "disks").glob("*.img"))


class LoopbackStorage:
    """An ext4 file system for every directory, in a sparse image that only root can mount.

    The image is `disks/<name>.img` in the manager's folder, from before its directory is made until after that is deleted.
    So a bare directory without an image is one whose image was lost, and is never used. Its user can fill some 95 % of the
    quota: the rest is the file system's, counted so that nobody takes more of the disk than the quota says.

    A directory that was made before there was a quota stays as it is, without one (`usage().limit` is `None`), until it is
    replaced, as by restoring a checkpoint.

    Args:
        root: Where the directories are.
        quota: Bytes of an image. A larger one than before is given to a directory when it is next opened and no sandbox
            has it mounted; a smaller one takes nothing away from those that have more.
    """

    level: Level = "loopback"

    def __init__(self, root: Path, quota: int) -> None:
        if quota < SMALLEST:
            raise SandboxError(f"a file system of its own takes a quota of at least {SMALLEST} bytes, got {quota}")
        self._root = root
        self._own = root / MANAGER_FOLDER
        self._disks = self._own / "disks"
        self._quota = quota
        self._plain = PlainStorage(root)

    def create(self, path: Path, uid: int) -> None:
        with self._alone(path):
            self._check_new(path)
            image = self._image(path)
            with self._new_image(path, self._quota, uid) as draft:
                # If there is one, it is what a deletion that broke off has left.
                draft.rename(image)
            path.mkdir(mode=_BARE)
            mount(image, path)

    def open(self, path: Path) -> None:
        # In this order: what is mounted may just be taken away, by a program whose starter was killed.
        if not is_held(self._lock(path)) and is_mounted(path):
            with suppress(FileNotFoundError):
                if not self._is_small(self._image(path)) and not has_errors(path):
                    settle(path)
                    return
        with self._alone(path):
            self._open(path)

    def move(self, source: Path, target: Path) -> None:
        self.open(source)
        image, new = self._image(source), self._image(target)
        if not image.exists():
            rename_new(source, target)
            return
        with self._alone(target):
            self._check_new(target)
            new.unlink(missing_ok=True)
            # Both names from here on: whichever directory is used, it is this file system, and not a second view of it.
            os.link(image, new)
            try:
                target.mkdir(mode=_BARE)
            except FileExistsError:
                new.unlink()
                raise
            try:
                view(source, target)
            except SandboxError:
                target.rmdir()
                new.unlink()
                raise
        self.delete(source)

    def replace(self, path: Path, fill: Callable[[Path], object]) -> None:
        self.open(path)
        image = self._image(path)
        size = max(self._quota, image.stat().st_size if image.exists() else 0)
        with self._new_image(path, size, path.stat().st_uid) as draft:
            with self._mounted_aside(draft) as directory:
                fill(directory)
                sync_mounted(directory, draft)
            with self._alone(path):
                if image.exists():
                    if is_mounted(path):
                        unmount(path)
                    draft.rename(image)
                    sync_folder(self._disks)
                else:
                    self._replace_plain(path, draft)
                self._open(path)

    def delete(self, path: Path) -> bool:
        with self._alone(path) as lock:
            image = self._image(path)
            existed = os.path.lexists(path)
            if existed:
                while image.exists() and is_mounted(path):
                    unmount(path)
                self._plain.delete(path)
            # A sandbox that has it mounted keeps it until its own end.
            for file in (image, self._next(image), self._growing(image)):
                file.unlink(missing_ok=True)
            lock.unlink()
            return existed

    def usage(self, path: Path) -> StorageUsage:
        self.open(path)
        if not self._image(path).exists():
            return self._plain.usage(path)
        found = os.statvfs(path)
        return StorageUsage(
            used=(found.f_blocks - found.f_bfree) * found.f_frsize,
            files=max(0, found.f_files - found.f_ffree - _OWN_INODES),
            # A part of what is free is kept back for the file system's own use.
            limit=(found.f_blocks - found.f_bfree + found.f_bavail) * found.f_frsize,
        )

    def tidy(self) -> None:
        self._plain.tidy()
        for draft in abandoned(self._disks, "*.draft"):
            self._give_up(draft)
        for image in self._disks.glob("*.img"):
            path = self._directory(image)
            if not os.path.lexists(path):
                with self._alone(path) as lock:
                    # Made meanwhile, it is in use.
                    if not os.path.lexists(path):
                        image.unlink(missing_ok=True)
                        self._growing(image).unlink(missing_ok=True)
                        lock.unlink()

    # --- opening, while nobody else does anything to the directory

    def _open(self, path: Path) -> None:
        image = self._image(path)
        mounted = is_mounted(path)
        if not image.exists():
            self._open_without_image(path, image, mounted)
            return
        if mounted and self._may_be_taken_out(path, image):
            unmount(path)
            mounted = False
        if not mounted:
            self._mount(image, path)
        settle(path)
        if has_errors(path):
            raise SandboxError(
                f"the file system at {path} had an error of the disk, which may have been full, and takes no writes: "
                "stop the user's sandboxes, for it to be repaired when it is used next"
            )

    def _may_be_taken_out(self, path: Path, image: Path) -> bool:
        """Whether a file system that is mounted has something to be done to it, and is nobody's to use just now."""
        if not has_errors(path):
            return self._is_small(image) and not is_used_elsewhere(path)
        # Without a repair nothing goes on, so that it is worth a moment: any container that is being started has it, too.
        give_up = time.monotonic() + _START_OF_OTHERS
        while is_used_elsewhere(path):
            if time.monotonic() > give_up:
                return False
            time.sleep(0.02)
        return True

    def _open_without_image(self, path: Path, image: Path, mounted: bool) -> None:
        if mounted or not _is_bare(path):
            # From before there was a quota.
            return
        if not self._next(image).exists():
            raise SandboxError(
                f"{image}, which holds the files of {path}, is missing: bring it back, or delete the user's files"
            )
        self._next(image).rename(image)
        self._open(path)

    def _mount(self, image: Path, path: Path) -> None:
        if not _is_bare(path):
            raise SandboxError(
                f"{path} is not the empty directory that {image} is to be mounted at: move away what is in it, and make "
                f"it one with `chmod 0 {path}`"
            )
        # Somebody may be using it still; then there is nothing to be done to it now.
        if not is_attached(image):
            self._prepare(image)
        mount(image, path)

    def _prepare(self, image: Path) -> None:
        """Have a file system that nobody uses in order, and as large as it should be."""
        growing = self._growing(image)
        check_image(image, half_grown=growing.exists())
        if self._is_small(image) or growing.exists():
            growing.touch(mode=0o600)
            sync_folder(self._disks)
            grow(image, max(self._quota, image.stat().st_size))
            growing.unlink()

    def _is_small(self, image: Path) -> bool:
        return image.stat().st_size < self._quota

    # --- replacing

    def _replace_plain(self, path: Path, draft: Path) -> None:
        """Put an image in the place of a directory that has none; the exchange is the step that counts."""
        old = self._plain.aside("replacing")
        old.mkdir(mode=_BARE)
        following = self._next(self._image(path))
        try:
            draft.rename(following)
            sync_folder(self._disks)
            exchange(old, path)
            following.rename(self._image(path))
        finally:
            remove_tree(old.parent, old.name)

    @contextmanager
    def _new_image(self, path: Path, size: int, uid: int) -> Generator[Path]:
        """An empty file system that is deleted afterwards, unless it was given another name."""
        draft = self._image(path).with_suffix(f".{secrets.token_hex(8)}.draft")
        draft.touch(mode=0o600, exist_ok=False)
        with at_work(draft):
            try:
                make_image(draft, size, uid)
                yield draft
            finally:
                draft.unlink(missing_ok=True)

    @contextmanager
    def _mounted_aside(self, draft: Path) -> Generator[Path]:
        directory = self._aside(draft)
        directory.mkdir(mode=_BARE, parents=True)
        try:
            mount(draft, directory)
            try:
                yield directory
            finally:
                unmount(directory)
        finally:
            directory.rmdir()

    def _give_up(self, draft: Path) -> None:
        directory = self._aside(draft)
        with suppress(FileNotFoundError):
            while is_mounted(directory):
                unmount(directory)
            directory.rmdir()
        draft.unlink(missing_ok=True)

    # --- names

    @contextmanager
    def _alone(self, path: Path) -> Generator[Path]:
        """Nobody else mounts, moves or deletes the directory in here; yields the lock, which may be deleted."""
        self._disks.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = self._lock(path)
        with alone(lock):
            yield lock

    def _lock(self, path: Path) -> Path:
        return self._image(path).with_suffix(".lock")

    def _image(self, path: Path) -> Path:
        """The image of a directory: a user's name has no dot in it, and other directories are below one with a dot."""
        return self._disks / f"{'.'.join(path.relative_to(self._root).parts)}.img"

    def _directory(self, image: Path) -> Path:
        below = image.stem.removeprefix(f"{MANAGER_FOLDER}.")
        return self._root / image.stem if below == image.stem else self._own.joinpath(*below.split("."))

    @staticmethod
    def _next(image: Path) -> Path:
        """What becomes the image of a directory that has none, once that is bare."""
        return image.with_suffix(".next")

    @staticmethod
    def _growing(image: Path) -> Path:
        """What tells that an image is being grown, or that this was broken off."""
        return image.with_suffix(".growing")

    def _aside(self, draft: Path) -> Path:
        """Where a draft is mounted while it is filled."""
        return self._own / "mounting" / draft.stem

    @staticmethod
    def _check_new(path: Path) -> None:
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _is_bare(path: Path) -> bool:
    """Whether something is to be mounted at a directory, and is not; a tenant's own would not be root's."""
    found = path.lstat()
    return found.st_uid == 0 and found.st_mode & 0o777 == _BARE and not any(path.iterdir())
