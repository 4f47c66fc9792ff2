"""Writing a file in a tenant's directory: it is there completely, or not at all."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from types import TracebackType
from typing import Self

__all__ = ("Upload",)

_MODE = 0o644
"""Permissions of a file that replaces none."""


class Upload:
    """A file that is being written under another name. Leaving it with `with` gives it up unless it was committed.

    Args:
        folder: Descriptor of the directory it will be in, which is taken over.
        name: Its name there.
        owner: Who it is given to, with the group.
        limit: Bytes it may have.

    Raises:
        IsADirectoryError: The name is a directory's.
        OSError: The directory cannot be written.
    """

    def __init__(self, folder: int, name: str, *, owner: tuple[int, int] | None, limit: int | None) -> None:
        self._folder = folder
        self._name = name
        self._limit = limit
        self._size = 0
        self._draft = f".upload-{os.urandom(8).hex()}"
        self._named = False
        try:
            mode = self._mode()
            self._file = self._opened()
        except BaseException:
            os.close(folder)
            raise
        self._open = True
        try:
            if owner is not None:
                os.fchown(self._file, *owner)
            os.fchmod(self._file, mode)
        except BaseException:
            self.abort()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.abort()

    def write(self, chunk: bytes) -> None:
        """Append to the file.

        Raises:
            OSError: With `EDQUOT`: it would be larger than its limit, and nothing of `chunk` was written. Otherwise as for
                any file.
        """
        if self._limit is not None and self._size + len(chunk) > self._limit:
            raise OSError(errno.EDQUOT, f"the file would have more than {self._limit} bytes", self._name)
        rest = memoryview(chunk)
        while rest:
            count = os.write(self._file, rest)
            self._size += count
            rest = rest[count:]

    def commit(self) -> None:
        """Put the file in its place, durably.

        Raises:
            IsADirectoryError: A directory is there by now.
            OSError: It cannot be put there.
        """
        os.fsync(self._file)
        if not self._named:
            os.link(f"/proc/self/fd/{self._file}", self._draft, dst_dir_fd=self._folder)
        os.rename(self._draft, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        os.fsync(self._folder)
        self._close()

    def abort(self) -> None:
        """Leave no trace of it; nothing happens if it was committed or given up already."""
        if not self._open:
            return
        # Hostile code may have put anything in its place, or nothing.
        with suppress(FileNotFoundError, IsADirectoryError):
            os.unlink(self._draft, dir_fd=self._folder)
        self._close()

    def _opened(self) -> int:
        """A file without a name where there can be one: it goes with this process if that is killed.

        Where somebody watches how much there is, it has to be seen.
        """
        if self._limit is None and (without_name := getattr(os, "O_TMPFILE", 0)):
            with suppress(OSError):
                return os.open(".", os.O_WRONLY | without_name, 0o600, dir_fd=self._folder)
        self._named = True
        return os.open(self._draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=self._folder)

    def _close(self) -> None:
        self._open = False
        os.close(self._file)
        os.close(self._folder)

    def _mode(self) -> int:
        """The permissions of what is replaced, if it is a file."""
        if self._name == ".":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        try:
            found = os.lstat(self._name, dir_fd=self._folder)
        except FileNotFoundError:
            return _MODE
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self._name)
        # Not those bits that would make it run as somebody else.
        return stat.S_IMODE(found.st_mode) & 0o777 if stat.S_ISREG(found.st_mode) else _MODE
