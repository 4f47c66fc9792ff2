"""Disk images with a file system in them: made, mounted and grown by the host's own programs."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from ...errors import SandboxError

__all__ = ("grow", "is_mounted", "make_image", "missing_programs", "mount", "unmount", "view")

_PROGRAMS = ("mkfs.ext4", "mount", "umount", "e2fsck", "resize2fs")

_PATIENCE = 120.0
"""Seconds for one of them."""

_BYTES_PER_INODE = 16_384
"""An image gets one inode for this many bytes, as ext4 does by default, so that files cannot be too many either."""

_OPTIONS = "loop,nosuid,nodev,noatime"

_SEARCH = os.pathsep.join(("/usr/sbin", "/sbin", "/usr/bin", "/bin"))


def missing_programs() -> list[str]:
    """Names of the programs that are not installed."""
    return [name for name in _PROGRAMS if shutil.which(name, path=_SEARCH) is None]


def make_image(image: Path, size: int, uid: int) -> None:
    """Make a file of `size` bytes, most of it holes, that holds an empty file system whose root belongs to `uid`.

    Raises:
        SandboxError: It cannot be made.
    """
    with image.open("xb") as file:
        file.truncate(size)
    extended = f"root_owner={uid}:{uid},lazy_itable_init=1,lazy_journal_init=1"
    _run("mkfs.ext4", "-q", "-F", "-m", "0", "-i", str(_BYTES_PER_INODE), "-E", extended, str(image))


def mount(image: Path, path: Path) -> None:
    """Mount an image at an empty directory, for this machine only; one that is mounted elsewhere is shared, not opened twice.

    Raises:
        SandboxError: It cannot be mounted.
    """
    _run("mount", "-t", "ext4", "-o", _OPTIONS, str(image), str(path))
    _run("mount", "--make-private", str(path))
    # Only an owner would use it, and this one's file system is never repaired by hand.
    with suppress(FileNotFoundError):
        (path / "lost+found").rmdir()
    path.chmod(0o700)


def view(source: Path, target: Path) -> None:
    """Show what is mounted at `source` at `target` as well.

    Raises:
        SandboxError: It cannot be shown.
    """
    _run("mount", "--bind", str(source), str(target))
    _run("mount", "--make-private", str(target))


def unmount(path: Path) -> None:
    """Take a mount away now, and release it when its last user is gone.

    Raises:
        SandboxError: It cannot be taken away.
    """
    _run("umount", "--lazy", str(path))


def grow(image: Path, size: int) -> None:
    """Give an image that is mounted nowhere more room.

    Raises:
        SandboxError: It cannot be grown.
    """
    # 1: it mended something, as after a file system that was not unmounted.
    _run("e2fsck", "-f", "-p", str(image), success=(0, 1))
    _run("resize2fs", str(image), f"{size // 1024}K")


def is_mounted(path: Path) -> bool:
    """Whether something is mounted at a directory.

    Raises:
        FileNotFoundError: There is no directory.
    """
    return path.lstat().st_dev != path.parent.lstat().st_dev


def _run(program: str, *arguments: str, success: tuple[int, ...] = (0,)) -> None:
    command = [shutil.which(program, path=_SEARCH) or program, *arguments]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxError(f"{program} does not work: {error}") from error
    if result.returncode not in success:
        raise SandboxError(f"{program} failed: {result.stderr.strip()[:500] or f'exit code {result.returncode}'}")
