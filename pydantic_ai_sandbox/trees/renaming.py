"""Renaming that never replaces, and exchanging two names in one step: what `rename` alone cannot do."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from pathlib import Path

__all__ = ("exchange", "rename_new", "sync_folder")

_CALL = {"x86_64": 316, "aarch64": 276}.get(platform.machine()) if sys.maxsize > 2**32 else None
"""Number of the system call: not every C library has a function for it."""

_AT_FDCWD = -100

_NOREPLACE, _EXCHANGE = 1, 2


def rename_new(source: Path, target: Path) -> None:
    """Rename, durably and in one step, unless `target` exists. There is no other way where the system lacks this one.

    Raises:
        FileExistsError: It does, be it as an empty directory or a dangling link.
        OSError: With `ENOTSUP`: the kernel or the file system cannot do it. Otherwise as for any rename.
    """
    _rename(source, target, _NOREPLACE)


def exchange(one: Path, other: Path) -> None:
    """Give each of two the name of the other, durably and in one step. There is no other way where the system lacks this one.

    Raises:
        FileNotFoundError: One of them does not exist.
        OSError: With `ENOTSUP`: the kernel or the file system cannot do it. Otherwise as for any rename.
    """
    _rename(one, other, _EXCHANGE)


def _rename(one: Path, other: Path, flags: int) -> None:
    error = _renameat2(os.fsencode(one), os.fsencode(other), flags)
    if error in (errno.ENOSYS, errno.EINVAL):
        what = "the kernel or the file system cannot rename without replacing or exchange names, or one is inside the other"
        raise OSError(errno.ENOTSUP, what, str(one), None, str(other))
    if error:
        raise OSError(error, os.strerror(error), str(one), None, str(other))
    for folder in {one.parent, other.parent}:
        sync_folder(folder)


def _renameat2(one: bytes, other: bytes, flags: int) -> int:
    """The system call; returns the number of its error, or 0."""
    if _CALL is None or sys.platform != "linux":
        return errno.ENOSYS
    library = ctypes.CDLL(None, use_errno=True)
    folder = ctypes.c_long(_AT_FDCWD)
    failed = library.syscall(
        ctypes.c_long(_CALL), folder, ctypes.c_char_p(one), folder, ctypes.c_char_p(other), ctypes.c_ulong(flags)
    )
    return ctypes.get_errno() if failed else 0


def sync_folder(folder: Path) -> None:
    """Have the names in a directory on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
