"""How a user's directory is kept, and what limits it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

__all__ = ("Level", "Storage", "StorageUsage")

Level = Literal["none", "soft", "loopback"]
"""What limits a directory: nothing; the runner of whoever uses it, which looks now and then; a file system of its own."""


@dataclass(frozen=True, kw_only=True)
class StorageUsage:
    """What a user's files occupy."""

    used: int
    """Bytes on the disk."""
    files: int
    """Entries of all kinds."""
    limit: int | None
    """Bytes there may be; `None`: any number."""


class Storage(Protocol):
    """Makes, moves, replaces and deletes users' directories; its methods block.

    Whoever calls holds a lock on the directory, among all processes, so that no two calls for the same one overlap.
    """

    @property
    def level(self) -> Level:
        """What limits a directory here."""
        ...

    def create(self, path: Path, uid: int) -> None:
        """Make a new, empty directory that belongs to `uid`, as far as we may give it away.

        Raises:
            FileExistsError: There is one.
        """
        ...

    def open(self, path: Path) -> None:
        """Make an existing one usable again, as after a restart of the machine; quick when it is.

        Raises:
            FileNotFoundError: There is none.
            SandboxError: It cannot be.
        """
        ...

    def move(self, source: Path, target: Path) -> None:
        """Give a directory another name while a container has it mounted, which goes on showing it.

        Raises:
            FileExistsError: `target` exists.
        """
        ...

    def replace(self, path: Path, fill: Callable[[Path], object]) -> None:
        """Make a new directory, have `fill` fill it, and put it in the place of the old one in one step.

        Whatever happens meanwhile, the old one or the new one is there, whole. No container may have it mounted.
        """
        ...

    def delete(self, path: Path) -> bool:
        """Delete a directory with all that is in it; returns whether there was one."""
        ...

    def usage(self, path: Path) -> StorageUsage:
        """What it holds.

        Raises:
            FileNotFoundError: There is none.
        """
        ...

    def tidy(self) -> None:
        """Remove what was left by whoever was killed in the midst of something, and nothing that is in use."""
        ...
