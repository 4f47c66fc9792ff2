"""Going through a tree of any depth without recursion, with a bounded number of open directories, following no link."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, NamedTuple, Self

from .descriptors import is_gone, open_folder

__all__ = ("Descent", "Step", "walk")

_MOST_OPEN = 64
"""Directories of a descent that are open at once."""

_MOST_REMEMBERED = 200_000
"""Names of directories held in memory: those on the way down, and those still to be entered."""


@dataclass
class _Level:
    name: str
    identity: tuple[int, int]
    descriptor: int | None


class Descent:
    """The way from a root down to one directory. Most directories on it are closed and opened again when needed.

    They are opened again by their names, from the nearest that is still open, and must be the same as before. So every
    descriptor is of a directory that was found inside the tree, whatever is moved meanwhile.

    Args:
        root: Descriptor of the root; it stays the caller's.
    """

    def __init__(self, root: int) -> None:
        self._levels = [_Level("", _identity(root), os.dup(root))]
        self._held = [0]
        self._lost: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for level in self._levels:
            _close(level)

    def enter(self, name: str) -> os.stat_result:
        """Go down into `name`; returns what the directory is.

        Raises:
            OSError: There is no such directory (`is_gone`; one of another file system counts as none), or it cannot be
                opened.
        """
        descriptor = open_folder(name, self.folder())
        found = os.fstat(descriptor)
        identity = (found.st_dev, found.st_ino)
        if identity[0] != self._levels[0].identity[0]:
            os.close(descriptor)
            raise FileNotFoundError(errno.ENOENT, "on another file system", name)
        self._levels.append(_Level(name, identity, descriptor))
        self._hold(len(self._levels) - 1)
        return found

    def leave(self) -> None:
        """Go up again."""
        _close(self._levels.pop())
        depth = len(self._levels)
        if self._held[-1] == depth:
            self._held.pop()
        if self._lost is not None and depth <= self._lost:
            self._lost = None

    def folder(self) -> int:
        """Descriptor of the directory that was reached; valid until the next call.

        Raises:
            OSError: It is not where it was (`is_gone`).
        """
        if self._lost is not None:
            raise _stale(self._levels[-1].name)
        for depth in range(self._held[-1] + 1, len(self._levels)):
            self._open_again(depth)
        descriptor = self._levels[-1].descriptor
        assert descriptor is not None
        return descriptor

    def _open_again(self, depth: int) -> None:
        level, above = self._levels[depth], self._levels[depth - 1].descriptor
        assert above is not None
        try:
            descriptor = open_folder(level.name, above)
            if _identity(descriptor) != level.identity:
                os.close(descriptor)
                raise _stale(level.name)
        except OSError as error:
            if is_gone(error):
                # Remembered, or every level below would look for it anew.
                self._lost = depth
            raise
        level.descriptor = descriptor
        self._hold(depth)

    def _hold(self, depth: int) -> None:
        """Note that a level is open. If too many are, close one: that which leaves the smallest gap for how far up it is.

        So those that stay open are the farther apart the farther up they are, and the way back costs little for each level,
        however many there are.
        """
        self._held.append(depth)
        if len(self._held) <= _MOST_OPEN:
            return
        held = self._held
        index = min(
            range(1, len(held) - 1), key=lambda index: (held[index + 1] - held[index - 1]) / (depth - held[index])
        )
        _close(self._levels[held.pop(index)])


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


def _close(level: _Level) -> None:
    if level.descriptor is not None:
        os.close(level.descriptor)
        level.descriptor = None


def _stale(name: str) -> OSError:
    return OSError(errno.ESTALE, os.strerror(errno.ESTALE), name)


class Step(NamedTuple):
    """One step of a walk."""

    kind: Literal["entry", "enter", "leave"]
    """What is no directory, or a directory before and after what is in it."""
    folder: int
    """Descriptor, until the next step: of the directory that the entry is in, or of the directory entered; when leaving, -1."""
    name: str
    found: os.stat_result


def walk(root: int) -> Generator[Step]:
    """Every entry below the directory `root`: of each directory first what is no directory, then directory by directory.

    What vanishes meanwhile is left out; whatever is entered is left, too. Other file systems are not entered.

    Args:
        root: Its descriptor; it stays the caller's.

    Raises:
        PermissionError: A directory cannot be read.
        OSError: With `EOVERFLOW`: more directories beside and in each other than can be remembered.
    """
    with Descent(root) as descent:
        todo: list[str | Step] = []
        yield from _entries(descent.folder(), todo)
        while todo:
            step = todo.pop()
            if isinstance(step, Step):
                descent.leave()
                yield step
                continue
            try:
                found = descent.enter(step)
            except OSError as error:
                if not is_gone(error):
                    raise
                continue
            todo.append(Step("leave", -1, step, found))
            yield Step("enter", descent.folder(), step, found)
            yield from _entries(descent.folder(), todo)


def _entries(folder: int, todo: list[str | Step]) -> Generator[Step]:
    """What in a directory is no directory, read a piece at a time; the names of directories are put into `todo`."""
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(found.st_mode):
                yield Step("entry", folder, entry.name, found)
            elif len(todo) < _MOST_REMEMBERED:
                todo.append(entry.name)
            else:
                raise OSError(
                    errno.EOVERFLOW, f"more than {_MOST_REMEMBERED:,} directories beside and in each other", entry.name
                )
