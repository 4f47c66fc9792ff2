"""Users' directories as plain directories; nothing but the runner of whoever uses one limits it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ...spec import MANAGER_FOLDER
from ...trees import exchange, measure, remove_tree, rename_new
from .base import Level, StorageUsage
from .working import abandoned, at_work

__all__ = ("PlainStorage",)


class PlainStorage:
    """Directories under a root.

    Args:
        root: Where they are.
        quota: Bytes that each may hold, for somebody else to look after; `None`: any number.
    """

    def __init__(self, root: Path, quota: int | None = None) -> None:
        self._own = root / MANAGER_FOLDER
        self._quota = quota

    @property
    def level(self) -> Level:
        return "none" if self._quota is None else "soft"

    def create(self, path: Path, uid: int) -> None:
        path.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(path, uid, uid)

    def open(self, path: Path) -> None:
        path.lstat()

    def move(self, source: Path, target: Path) -> None:
        rename_new(source, target)

    def replace(self, path: Path, fill: Callable[[Path], object]) -> None:
        new = self.aside("replacing")
        self.create(new, path.stat().st_uid)
        try:
            with at_work(new):
                fill(new)
                exchange(new, path)
        finally:
            remove_tree(new.parent, new.name)

    def delete(self, path: Path) -> bool:
        gone = self.aside("deleting")
        try:
            # Its name is free at once, and half of it is never taken for a directory.
            path.rename(gone)
        except FileNotFoundError:
            return False
        with at_work(gone):
            remove_tree(gone.parent, gone.name)
        return True

    def usage(self, path: Path) -> StorageUsage:
        found = measure(path)
        return StorageUsage(used=found.bytes, files=found.files, limit=self._quota)

    def tidy(self) -> None:
        for folder in (self._own / "replacing", self._own / "deleting"):
            for path in abandoned(folder):
                with suppress(FileNotFoundError):
                    remove_tree(folder, path.name)

    def aside(self, what: str) -> Path:
        """A name that nobody has, in a folder of ours that is tidied: `"replacing"` or `"deleting"`."""
        folder = self._own / what
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder / secrets.token_hex(8)
