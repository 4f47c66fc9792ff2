"""How much a tree occupies."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from .descriptors import READ_FOLDER
from .walking import walk

__all__ = ("TreeUsage", "measure")

_MOST_LINKED = 250_000
"""Files with several names that are recognized; what comes after them counts once for each name."""


@dataclass(frozen=True)
class TreeUsage:
    """What a tree occupies."""

    bytes: int
    """Allocated on the disk, directories included; a file with several names counts once."""
    files: int
    """Entries of every kind, each name of a file for itself."""


def measure(root: Path) -> TreeUsage:
    """What the directory `root` and everything below it on the same file system occupy.

    What is moved or changed meanwhile may count twice, or not at all.

    Raises:
        OSError: There is no such directory, or a part of it cannot be read.
    """
    top = os.open(root, READ_FOLDER)
    try:
        return _measure(top)
    finally:
        os.close(top)


def _measure(top: int) -> TreeUsage:
    occupied = _allocated(os.fstat(top))
    files = 0
    linked: set[int] = set()
    with closing(walk(top)) as steps:
        for step in steps:
            if step.kind == "leave":
                continue
            files += 1
            if step.kind == "entry" and step.found.st_nlink > 1:
                if step.found.st_ino in linked:
                    continue
                if len(linked) < _MOST_LINKED:
                    linked.add(step.found.st_ino)
            occupied += _allocated(step.found)
    return TreeUsage(occupied, files)


def _allocated(found: os.stat_result) -> int:
    # The unit of st_blocks is 512 bytes whatever the file system's blocks are.
    return found.st_blocks * 512
