"""Opening one name in an open directory: the object itself, never what a link in its place leads to, and never blocking."""

from __future__ import annotations

import errno
import os
import stat

__all__ = ("READ_FOLDER", "VANISHED", "is_gone", "is_no_file", "open_folder", "open_regular")

READ_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
"""How a directory is opened to be read."""

_O_PATH: int | None = getattr(os, "O_PATH", None)

# Without O_NONBLOCK a pipe waits for a writer, and a file that its owner holds a lease on for up to 45 seconds.
_READ = os.O_RDONLY | os.O_NONBLOCK

VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
"""What opening a name says when something else, or nothing, is there by now."""


def is_gone(error: OSError) -> bool:
    """Whether an error only says that somebody changed the tree meanwhile."""
    return error.errno in VANISHED


def is_no_file(error: OSError) -> bool:
    """Whether an error of `open_regular` only says that there is something else, or a file that nobody may read just now."""
    return error.errno in (errno.EISDIR, errno.EINVAL, errno.EAGAIN)


def open_folder(name: str, folder: int) -> int:
    """Open the directory `name` in `folder` to be read.

    Raises:
        OSError: There is none (`is_gone`), or it cannot be opened.
    """
    return os.open(name, READ_FOLDER, dir_fd=folder)


def open_regular(name: str, folder: int) -> int:
    """Open the regular file `name` in `folder` to be read.

    Raises:
        IsADirectoryError: It is a directory.
        BlockingIOError: A process holds a lease on it.
        OSError: There is none (`is_gone`; a link counts as none), it is not a regular file, or it cannot be opened.
    """
    if _O_PATH is None:
        return _checked(os.open(name, _READ | os.O_NOFOLLOW, dir_fd=folder), name)
    # Opening a device does something to it already, so what it is has to be known before.
    pin = _checked(os.open(name, _O_PATH | os.O_NOFOLLOW, dir_fd=folder), name)
    try:
        return os.open(f"/proc/self/fd/{pin}", _READ)
    finally:
        os.close(pin)


def _checked(descriptor: int, name: str) -> int:
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
        if stat.S_ISLNK(mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", name)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
