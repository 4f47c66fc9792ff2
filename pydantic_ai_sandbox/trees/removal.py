"""Deleting a tree that a tenant made: by directory descriptors, following no link, however deep it is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ("remove_tree",)

_DEEPEST = 64
"""Directories open at once; what lies deeper is first moved up."""


def remove_tree(root: Path, name: str) -> None:
    """Delete `name` in the directory `root` with all that is in it.

    Raises:
        OSError: Something cannot be deleted.
    """
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _remove(folder, name)
    finally:
        os.close(folder)


def _remove(folder: int, name: str) -> None:
    if not _unlink(folder, name):
        return
    top = _open(folder, name)
    try:
        _empty(top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=folder)


def _empty(top: int) -> None:
    """Delete everything in a directory, depth first, with a stack instead of recursion."""
    stack = [(top, "", iter(os.listdir(top)))]
    moved = 0
    while stack:
        folder, name, entries = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
            if stack:
                os.close(folder)
                os.rmdir(name, dir_fd=stack[-1][0])
            elif leftover := os.listdir(top):
                # What was moved up, to be emptied like the rest.
                stack.append((top, "", iter(leftover)))
        elif _unlink(folder, entry):
            if len(stack) >= _DEEPEST:
                os.rename(entry, f".removing-{moved}-{os.urandom(4).hex()}", src_dir_fd=folder, dst_dir_fd=top)
                moved += 1
            else:
                child = _open(folder, entry)
                stack.append((child, entry, iter(os.listdir(child))))


def _unlink(folder: int, name: str) -> bool:
    """Delete what is not a directory; returns whether it is one."""
    if stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
        return True
    os.unlink(name, dir_fd=folder)
    return False


def _open(folder: int, name: str) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
    except PermissionError:
        _unlock(folder, name)
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)


def _unlock(folder: int, name: str) -> None:
    """Give ourselves access to a directory that its owner closed, and not to what a link in its place leads to."""
    child = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
    try:
        os.chmod(f"/proc/self/fd/{child}", 0o700)
    finally:
        os.close(child)
