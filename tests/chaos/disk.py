"""A small file system of its own for the users' directories, which can be full."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

__all__ = ("Disk",)

_SIZE = 512 * 1024 * 1024


class Disk:
    """An ext4 image, mounted; needs root."""

    def __init__(self, folder: Path) -> None:
        self._image = folder / "disk.img"
        self.path = folder / "disk"
        self._filler = self.path / "filler"

    def mount(self) -> None:
        """Make it and mount it."""
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(_SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", self._image], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", self._image, self.path], check=True, capture_output=True)

    def fill(self) -> None:
        """Leave no room."""
        with self._filler.open("ab", buffering=0) as filler:
            for piece in (1 << 20, 4096):
                try:
                    while True:
                        filler.write(bytes(piece))
                except OSError:
                    # The last of it only goes in smaller pieces.
                    continue
            os.fsync(filler.fileno())

    def free(self) -> None:
        """Make room again."""
        self._filler.unlink(missing_ok=True)

    def unmount(self) -> None:
        """Take it away."""
        subprocess.run(["umount", self.path], check=False, capture_output=True)
