"""Copying a tenant's directory, durably, without space or time for what is not in it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from .descriptors import READ_FOLDER, is_gone, is_no_file, open_folder, open_regular
from .removal import empty_folder, remove_tree
from .walking import Descent, Step, walk

__all__ = ("TreeCopy", "copy_tree")

Proceed = Callable[[int], None]
"""Called now and then with the bytes copied so far; raises to break off."""

_FICLONE = 0x40049409

_PIECE = 16 * 1024 * 1024
"""Bytes that the kernel copies at once."""

_BUFFER = 262_144
"""Bytes copied at once where the kernel cannot do it."""

_CANNOT = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTTY, errno.EOPNOTSUPP, errno.EPERM, errno.EXDEV})
"""What the kernel says when it does not copy in this way, but may in another."""


@dataclass(frozen=True)
class TreeCopy:
    """What was copied."""

    files: int
    """Entries of every kind, each name of a file for itself."""
    bytes: int
    """What was in the files, without their holes; a file with several names counts once."""
    skipped: int
    """Entries that a copy cannot have: pipes, sockets, devices, and files that a process keeps others from reading."""


def copy_tree(source: Path, target: Path, *, proceed: Proceed | None = None, into_existing: bool = False) -> TreeCopy:
    """Copy the directory `source` as the directory `target`, which is on the disk when this returns.

    Kept are contents, holes, links as their text, hard links among what is copied, permissions except those that make a
    program run as somebody else, times, and owners if we are root. Not kept are extended attributes. Files that change
    meanwhile are copied in one state or another, those that vanish are left out. A copy that fails removes what it made.

    Args:
        source: What is copied, as far as it is on one file system. Hostile code may be changing it.
        target: Where to; nobody else may be changing it.
        proceed: Called for every entry and every few megabytes with the bytes copied so far; what it raises ends the copy.
        into_existing: Whether `target` is an empty directory that exists, instead of one that does not.

    Raises:
        FileExistsError: `target` exists.
        OSError: With `ENOTEMPTY`: it is not empty. Otherwise `source` cannot be read or `target` cannot be written.
    """
    with ExitStack() as stack:
        read = os.open(source, READ_FOLDER)
        stack.callback(os.close, read)
        if not into_existing:
            os.mkdir(target, 0o700)
        try:
            written = os.open(target, READ_FOLDER)
            stack.callback(os.close, written)
            if into_existing:
                _check_empty(written, target)
            copy = _Copy(read, written, proceed or (lambda _: None))
        except BaseException:
            if not into_existing:
                os.rmdir(target)
            raise
        try:
            result = copy.run()
            _sync(written)
        except BaseException:
            empty_folder(written)
            if not into_existing:
                remove_tree(target.parent, target.name)
            raise
        if not into_existing:
            _sync_parent(target)
        return result


def _check_empty(folder: int, path: Path) -> None:
    with os.scandir(folder) as entries:
        if next(entries, None) is not None:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))


class _Copy:
    """One copy under way, from one open directory into another."""

    def __init__(self, source: int, target: int, proceed: Proceed) -> None:
        self._source = source
        self._target = target
        self._proceed = proceed
        self._contents = _Contents(self._count)
        self._links = _Links(target)
        self._files = self._bytes = self._skipped = 0

    def run(self) -> TreeCopy:
        found = os.fstat(self._source)
        with self._links, Descent(self._target) as made, closing(walk(self._source)) as steps:
            for step in steps:
                self._proceed(self._bytes)
                if step.kind == "enter":
                    _make_folder(step.name, made.folder())
                    made.enter(step.name)
                    self._files += 1
                elif step.kind == "leave":
                    # Last, because what is made in a directory changes its time, and not every directory can be written.
                    _finish(made.folder(), step.found)
                    made.leave()
                else:
                    self._entry(step, made.folder())
        _finish(self._target, found)
        return TreeCopy(self._files, self._bytes, self._skipped)

    def _count(self, more: int) -> None:
        self._bytes += more
        self._proceed(self._bytes)

    def _entry(self, step: Step, folder: int) -> None:
        mode = step.found.st_mode
        # A name can come twice while entries are renamed: then the first one stays.
        with suppress(FileExistsError):
            if stat.S_ISREG(mode):
                self._files += self._links.again(step.found, step.name, folder) or self._file(step, folder)
            elif stat.S_ISLNK(mode):
                self._files += self._link(step, folder)
            else:
                self._skipped += 1

    def _link(self, step: Step, folder: int) -> bool:
        """Copy a symbolic link; returns whether it was."""
        try:
            text = os.readlink(step.name, dir_fd=step.folder)
        except OSError as error:
            self._pass_over(error)
            return False
        os.symlink(text, step.name, dir_fd=folder)
        if os.geteuid() == 0:
            os.chown(step.name, step.found.st_uid, step.found.st_gid, dir_fd=folder, follow_symlinks=False)
        os.utime(step.name, ns=_times(step.found), dir_fd=folder, follow_symlinks=False)
        return True

    def _file(self, step: Step, folder: int) -> bool:
        """Copy a file; returns whether it was."""
        try:
            source = open_regular(step.name, step.folder)
        except OSError as error:
            self._pass_over(error)
            return False
        try:
            found = os.fstat(source)
            target = os.open(step.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=folder)
            try:
                self._contents.copy(source, found.st_size, target)
                _finish(target, found)
            finally:
                os.close(target)
        finally:
            os.close(source)
        self._links.remember(found, step.name, folder)
        return True

    def _pass_over(self, error: OSError) -> None:
        """Go on after an entry could not be opened, if it is only that somebody changed it or keeps others from it."""
        if is_gone(error):
            return
        # EINVAL is also what reading a link says that is none by now.
        if not is_no_file(error):
            raise error
        self._skipped += 1


def _make_folder(name: str, folder: int) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=folder)
    except FileExistsError:
        # A name can come twice while entries are renamed: then a directory stays, and takes the place of anything else.
        if not stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
            os.unlink(name, dir_fd=folder)
            os.mkdir(name, 0o700, dir_fd=folder)


class _Links:
    """Files of the copy that have several names in the source, found by a name each in a directory of their own.

    On the disk and not in memory, because there may be any number of them.

    Args:
        top: Descriptor of the copy's root.
    """

    def __init__(self, top: int) -> None:
        self._top = top
        self._name = f".links-{os.urandom(8).hex()}"
        self._folder: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._folder is not None:
            empty_folder(self._folder)
            os.close(self._folder)
            os.rmdir(self._name, dir_fd=self._top)

    def again(self, found: os.stat_result, name: str, folder: int) -> bool:
        """Give a file that was copied already another name; returns whether it was."""
        if found.st_nlink < 2 or self._folder is None:
            return False
        try:
            os.link(_key(found), name, src_dir_fd=self._folder, dst_dir_fd=folder)
        except OSError as error:
            # Unknown, or with as many names as a file can have here.
            if error.errno in (errno.ENOENT, errno.EMLINK):
                return False
            raise
        return True

    def remember(self, found: os.stat_result, name: str, folder: int) -> None:
        """Note that a file was copied."""
        if found.st_nlink < 2:
            return
        if self._folder is None:
            os.mkdir(self._name, 0o700, dir_fd=self._top)
            self._folder = open_folder(self._name, self._top)
        try:
            os.link(name, _key(found), src_dir_fd=folder, dst_dir_fd=self._folder, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.EMLINK):
                raise


def _key(found: os.stat_result) -> str:
    # Not by the inode alone: it may be another file's by now.
    return f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"


class _Contents:
    """Copies what is in files, in the best way that works here.

    Args:
        count: Called with the number of bytes of each piece copied.
    """

    def __init__(self, count: Callable[[int], None]) -> None:
        self._count = count
        self._can_clone = self._can_copy = True

    def copy(self, source: int, size: int, target: int) -> None:
        """Copy the first `size` bytes, or what is left of them."""
        if self._cloned(source, size, target):
            return
        for start, end in _data(source, size):
            self._range(source, target, start, end)
        os.ftruncate(target, min(size, os.fstat(source).st_size))

    def _cloned(self, source: int, size: int, target: int) -> bool:
        if not self._can_clone or size == 0:
            return False
        try:
            fcntl.ioctl(target, _FICLONE, source)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            self._can_clone = False
            return False
        found = os.fstat(target)
        self._count(min(found.st_size, found.st_blocks * 512))
        return True

    def _range(self, source: int, target: int, start: int, end: int) -> None:
        while start < end:
            count = self._piece(source, target, start, end - start)
            if not count:
                return
            start += count
            self._count(count)

    def _piece(self, source: int, target: int, start: int, length: int) -> int:
        """Copy a piece; returns its length, 0 at the end of the file."""
        if self._can_copy:
            try:
                return os.copy_file_range(source, target, min(length, _PIECE), start, start)
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise
            except AttributeError:
                # Not on this system.
                pass
            self._can_copy = False
        return os.pwrite(target, os.pread(source, min(length, _BUFFER), start), start)


def _data(source: int, size: int) -> Iterator[tuple[int, int]]:
    """Where there is something else than holes in the first `size` bytes."""
    end = 0
    while end < size:
        try:
            start = os.lseek(source, end, os.SEEK_DATA)
            end = min(size, os.lseek(source, start, os.SEEK_HOLE))
        except OSError as error:
            # A hole up to the end, or a file that was cut.
            if error.errno == errno.ENXIO:
                return
            raise
        if start < end:
            yield start, end


def _finish(descriptor: int, found: os.stat_result) -> None:
    """Make a file or directory what it was, all but its contents."""
    if os.geteuid() == 0:
        os.fchown(descriptor, found.st_uid, found.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(found.st_mode) & 0o777)
    os.utime(descriptor, ns=_times(found))


def _times(found: os.stat_result) -> tuple[int, int]:
    return found.st_atime_ns, found.st_mtime_ns


def _sync(descriptor: int) -> None:
    """Have everything on the descriptor's file system on the disk.

    One call for all files, because one for each of 200,000 takes minutes; what other tenants have not written yet is little
    beside that.

    Raises:
        OSError: Something could not be written.
    """
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        os.sync()
    elif syncfs(ctypes.c_int(descriptor)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _sync_parent(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
