"""Deleting a tree that a tenant made: by directory descriptors, following no link, however deep it is."""

from __future__ import annotations

import os
import stat
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

from .descriptors import is_gone, open_folder

__all__ = ("empty_folder", "remove_tree")

_DEEPEST = 64
"""Directories open at once; what lies deeper is first moved up."""


def remove_tree(root: Path, name: str) -> None:
    """Delete `name` in the directory `root` with all that is in it.

    Raises:
        FileNotFoundError: There is none.
        OSError: Something cannot be deleted.
    """
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _remove(folder, name)
    finally:
        os.close(folder)


def _remove(folder: int, name: str) -> None:
    if not stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
        os.unlink(name, dir_fd=folder)
        return
    top = _open(folder, name)
    try:
        empty_folder(top)
    finally:
        os.close(top)
    os.rmdir(name, dir_fd=folder)


def empty_folder(top: int) -> None:
    """Delete everything in an open directory, depth first, with a stack instead of recursion.

    Raises:
        OSError: Something cannot be deleted.
    """
    stack = [(top, "", _names(top))]
    try:
        while stack:
            folder, name, names = stack[-1]
            entry = next(names, None)
            if entry is None:
                stack.pop()
                if stack:
                    os.close(folder)
                    with suppress(FileNotFoundError):
                        os.rmdir(name, dir_fd=stack[-1][0])
            elif not _unlinked(folder, entry):
                if len(stack) < _DEEPEST:
                    _enter(stack, entry)
                else:
                    with suppress(FileNotFoundError):
                        os.rename(entry, f".removing-{os.urandom(8).hex()}", src_dir_fd=folder, dst_dir_fd=top)
    finally:
        for folder, _, names in stack:
            names.close()
            if folder != top:
                os.close(folder)


def _enter(stack: list[tuple[int, str, Generator[str]]], name: str) -> None:
    try:
        child = _open(stack[-1][0], name)
    except OSError as error:
        if not is_gone(error):
            raise
        # What is in its place, if anything, comes again.
        return
    stack.append((child, name, _names(child)))


def _names(folder: int) -> Generator[str]:
    """The names in a directory, again and again until there are none; so what is moved in meanwhile comes, too."""
    found = True
    while found:
        found = False
        with os.scandir(folder) as entries:
            for entry in entries:
                found = True
                yield entry.name


def _unlinked(folder: int, name: str) -> bool:
    """Delete what is not a directory; returns whether it is gone."""
    try:
        if stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
            return False
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        return False
    return True


def _open(folder: int, name: str) -> int:
    try:
        return open_folder(name, folder)
    except PermissionError:
        _unlock(folder, name)
        return open_folder(name, folder)


def _unlock(folder: int, name: str) -> None:
    """Give ourselves access to a directory that its owner closed, and not to what a link in its place leads to."""
    child = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
    try:
        os.chmod(f"/proc/self/fd/{child}", 0o700)
    finally:
        os.close(child)
