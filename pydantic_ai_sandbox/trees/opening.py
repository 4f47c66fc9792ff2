"""Finding things in a tenant's directory by the paths that the tenant uses, never outside of it."""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from .descriptors import READ_FOLDER, open_folder, open_regular
from .resolving import resolved
from .uploading import Upload

__all__ = ("SEEN_AS", "Tree", "TreeEntry", "TreeListing")

SEEN_AS = "/workspace"
"""Path of a tenant's directory in the tenant's container."""

Kind = Literal["file", "directory", "link", "other"]

_KINDS: dict[int, Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}


@dataclass(frozen=True)
class TreeEntry:
    """One entry of a directory."""

    name: str
    kind: Kind
    size: int
    """In bytes, as the system tells it."""
    mtime: float
    """When it was changed, in seconds since the epoch."""


@dataclass(frozen=True)
class TreeListing:
    """The entries of a directory, sorted by name."""

    entries: list[TreeEntry]
    truncated: bool
    """Whether there are more."""


class Tree:
    """A tenant's directory while it is entered with `with`, which opens it. Hostile code may change it at any moment.

    A path is relative to the root, or absolute as the tenant sees it. Links are followed as the tenant's programs would,
    as long as they stay inside. Whoever changes a directory while a path leads through it may cause an error, no more.

    Args:
        root: The directory; it is not followed if it is a link, and the path above it is trusted.
        seen_as: The tenant's path of the root.
    """

    def __init__(self, root: Path, *, seen_as: str = SEEN_AS) -> None:
        self._path = root
        self._seen_as = seen_as
        self._root = -1

    def __enter__(self) -> Self:
        self._root = os.open(self._path, READ_FOLDER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._root)

    def open_file(self, path: str) -> int:
        """Open a regular file to be read; returns its descriptor, which the caller closes.

        Raises:
            FileNotFoundError, NotADirectoryError, IsADirectoryError: As for any file.
            PermissionError: The path leads out of the workspace, or the file cannot be read.
            BlockingIOError: A process holds a lease on it.
            OSError: It is not a regular file, or the path has too many components or links.
            ValueError: The path has a NUL.
        """
        with self._found(path) as (folder, name):
            return open_regular(name, folder)

    def open_directory(self, path: str) -> int:
        """Open a directory to be read; returns its descriptor, which the caller closes.

        Raises:
            FileNotFoundError, NotADirectoryError: As for any directory.
            PermissionError: The path leads out of the workspace, or the directory cannot be read.
            OSError: The path has too many components or links.
            ValueError: The path has a NUL.
        """
        with self._found(path) as (folder, name):
            return open_folder(name, folder)

    def list(self, path: str = "", *, limit: int = 10_000) -> TreeListing:
        """The first `limit` entries of a directory by their names, in memory for as many.

        Raises:
            FileNotFoundError, NotADirectoryError, PermissionError, OSError, ValueError: As for `open_directory`.
        """
        folder = self.open_directory(path)
        try:
            with os.scandir(folder) as found:
                names = heapq.nsmallest(limit + 1, (entry.name for entry in found))
            return TreeListing([*_entries(folder, names[:limit])], truncated=len(names) > limit)
        finally:
            os.close(folder)

    def write(self, path: str, *, limit: int | None = None) -> Upload:
        """Begin to write a file, which appears when it is committed; missing directories above it are made at once.

        What is there already is replaced, also if it is a link. Everything made belongs to whom the root belongs to if we
        are root; a replaced file's permissions are kept.

        Args:
            path: Where it will be.
            limit: Bytes it may have.

        Raises:
            IsADirectoryError: A directory is there.
            NotADirectoryError: Something above it is not a directory.
            PermissionError: The path leads out of the workspace, or may not be written.
            OSError: The path has too many components or links, or there is no room.
            ValueError: The path has a NUL.
        """
        with resolved(self._root, path, seen_as=self._seen_as, make=self._make_folder) as (folder, name):
            return Upload(open_folder(".", folder), name, owner=self._owner(), limit=limit)

    # ---

    def _found(self, path: str) -> AbstractContextManager[tuple[int, str]]:
        return resolved(self._root, path, seen_as=self._seen_as)

    def _owner(self) -> tuple[int, int] | None:
        """Who what we make is given to, if it can be given."""
        found = os.fstat(self._root)
        return (found.st_uid, found.st_gid) if os.geteuid() == 0 else None

    def _make_folder(self, name: str, folder: int) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=folder)
        except FileExistsError:
            return
        made = open_folder(name, folder)
        try:
            if owner := self._owner():
                os.fchown(made, *owner)
            os.fchmod(made, 0o755)
        finally:
            os.close(made)
        above = open_folder(".", folder)
        try:
            os.fsync(above)
        finally:
            os.close(above)


def _entries(folder: int, names: list[str]) -> Iterator[TreeEntry]:
    for name in names:
        # It may be gone by now.
        with suppress(FileNotFoundError):
            found = os.lstat(name, dir_fd=folder)
            yield TreeEntry(name, _KINDS.get(stat.S_IFMT(found.st_mode), "other"), found.st_size, found.st_mtime)
