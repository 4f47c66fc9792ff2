"""Which files of a test this process has open: other descriptors come and go, with garbage of earlier tests for instance."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def open_below(folder: Path) -> list[Path]:
    """The paths of all descriptors of `folder` and of what is in it, deleted or not."""
    found: list[Path] = []
    for link in Path("/proc/self/fd").iterdir():
        # One that was closed meanwhile, such as the listing's own.
        with suppress(FileNotFoundError):
            found.append(link.readlink())
    return [path for path in found if path.is_relative_to(folder)]
