"""Disk images with a file system in them: made, checked, mounted and grown by the host's own programs."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from ...errors import SandboxError
from .working import held

__all__ = (
    "check_image",
    "grow",
    "has_errors",
    "is_attached",
    "is_mounted",
    "is_used_elsewhere",
    "make_image",
    "missing_programs",
    "mount",
    "own_namespace",
    "settle",
    "sync_mounted",
    "unmount",
    "view",
)

_PROGRAMS = ("mkfs.ext4", "e2fsck", "resize2fs", "mount", "umount", "losetup")

_PATIENCE = 120.0
"""Seconds for one of them."""

_CHECKING = 600.0
"""Seconds for the check of a file system that was not unmounted in order."""

_BYTES_PER_INODE = 16_384
"""One file for this many bytes: 65,536 in 1 GiB, the inodes of which take 1.6 % of it."""

_LARGE, _JOURNAL = 512 * 1024 * 1024, 4
"""MiB of the journal in images of so many bytes or more, the least there can be: unlike the rest of an image it takes its
place at once. By itself `mkfs.ext4` takes up to 8 MiB in smaller ones, and 64 in larger ones."""

_REALLY_WRITTEN = {"UNIX_IO_NOZEROOUT": "1"}
"""Has the programs write zeros: a place that is only set aside takes more of the host's disk when it is written first."""

_OPTIONS = "loop,nosuid,nodev,noatime,discard"
"""With `discard`, what is deleted inside goes back to the host's disk at once."""

_SEARCH = os.pathsep.join(("/usr/sbin", "/sbin", "/usr/bin", "/bin"))

_FIRST_PROCESS = Path("/proc/1")
"""Its mounts are taken for those that the engine sees."""


def missing_programs() -> list[str]:
    """Names of the programs that are not installed."""
    return [name for name in _PROGRAMS if shutil.which(name, path=_SEARCH) is None]


def own_namespace() -> bool:
    """Whether what we mount is seen by us alone, as in a service with systemd's `PrivateTmp`, and not by the engine.

    Where we may not look, trying has to do.
    """
    try:
        return Path("/proc/self/ns/mnt").readlink() != (_FIRST_PROCESS / "ns/mnt").readlink()
    except OSError:
        return False


def make_image(image: Path, size: int, uid: int) -> None:
    """Make an existing, empty file one of `size` bytes, most of it holes: a file system whose root belongs to `uid`.

    Raises:
        SandboxError: It cannot be made.
    """
    os.truncate(image, size)
    # An error of the disk stops all writing, instead of being written over.
    arguments = ["-q", "-F", "-m", "0", "-e", "remount-ro", "-i", str(_BYTES_PER_INODE)]
    # A journal in holes could not be written when the host's disk is full, and what was acknowledged would be lost with it.
    if size >= _LARGE:
        arguments += ["-J", f"size={_JOURNAL}"]
    extended = f"root_owner={uid}:{uid},lazy_itable_init=1,lazy_journal_init=0"
    _run("mkfs.ext4", *arguments, "-E", extended, str(image), env=_REALLY_WRITTEN)


def check_image(image: Path, *, half_grown: bool = False) -> None:
    """Bring a file system that nobody uses in order, if it is not; quick if it is.

    Args:
        image: What it is in.
        half_grown: Its growing was broken off: what is not in order then is made anew, and no file is in it.

    Raises:
        SandboxError: That takes a person.
    """
    how = ("-f", "-y") if half_grown else ("-p",)
    try:
        _run("e2fsck", *how, str(image), patience=_CHECKING, fine=(0, 1))
    except SandboxError as error:
        raise SandboxError(
            f"the file system in {image} is damaged: repair it with e2fsck, or delete it. {error}"
        ) from error


def mount(image: Path, path: Path) -> None:
    """Mount an image at an empty directory; one that is in use elsewhere is shared, not opened a second time.

    Raises:
        SandboxError: It cannot be mounted.
    """
    _run("mount", "--make-private", "-t", "ext4", "-o", _OPTIONS, str(image), str(path))
    settle(path)


def settle(path: Path) -> None:
    """Close a new file system to others and take `lost+found` out of it, which tells that this is yet to be done."""
    lost = path / "lost+found"
    # One of the tenant's own would not be root's.
    with suppress(FileNotFoundError):
        if lost.lstat().st_uid == 0:
            path.chmod(0o700)
            # It stays when a repair has put something into it.
            with suppress(OSError):
                lost.rmdir()


def view(source: Path, target: Path) -> None:
    """Show what is mounted at `source` at `target` as well.

    Raises:
        SandboxError: It cannot be shown.
    """
    _run("mount", "--make-private", "--bind", str(source), str(target))


def unmount(path: Path) -> None:
    """Take a mount away now; the file system and its loop device go with their last user.

    Raises:
        SandboxError: It cannot be taken away.
    """
    _run("umount", "--lazy", str(path))


def grow(image: Path, size: int) -> None:
    """Give a file system that nobody uses more room.

    It could be given while in use, too, by those who have `CAP_SYS_RESOURCE`, which root in a container has not.

    Raises:
        SandboxError: It cannot be grown.
    """
    _run("e2fsck", "-f", "-p", str(image), patience=_CHECKING, fine=(0, 1))
    _run("resize2fs", str(image), f"{size // 1024}K")
    # It can be a little less, for what is left is too little for a group of blocks.
    os.truncate(image, size)


def is_mounted(path: Path) -> bool:
    """Whether something is mounted at a directory.

    Raises:
        FileNotFoundError: There is no directory.
    """
    return path.lstat().st_dev != path.parent.lstat().st_dev


def is_attached(image: Path) -> bool:
    """Whether an image is in use, wherever it is mounted, under whatever name.

    Raises:
        SandboxError: That cannot be found out.
    """
    return bool(_run("losetup", "--noheadings", "--output", "NAME", "--associated", str(image)).strip())


def has_errors(path: Path) -> bool:
    """Whether what is mounted at `path` has seen an error of the disk, as when the host's is full; it takes no writes then."""
    try:
        return int(Path(f"/sys/fs/ext4/{_device(path)}/errors_count").read_text()) > 0
    except FileNotFoundError:
        return False


def is_used_elsewhere(path: Path) -> bool:
    """Whether what is mounted at `path` is mounted in another namespace, too, as in a sandbox's."""
    number = path.stat().st_dev
    device = f" {os.major(number)}:{os.minor(number)} "
    known = {Path("/proc/self/ns/mnt").readlink()}
    for process in Path("/proc").glob("[0-9]*"):
        # It may end at any moment.
        with suppress(OSError):
            namespace = (process / "ns/mnt").readlink()
            if namespace not in known:
                known.add(namespace)
                if device in (process / "mountinfo").read_text(errors="replace"):
                    return True
    return False


def sync_mounted(path: Path, image: Path) -> None:
    """Have everything in an image that is mounted at `path` on the host's disk.

    Raises:
        OSError: Something could not be written.
    """
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if library.syncfs(ctypes.c_int(folder)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    finally:
        os.close(folder)
    with image.open("rb") as file:
        os.fsync(file.fileno())


def _device(path: Path) -> str:
    number = path.stat().st_dev
    return Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").readlink().name


def _run(
    program: str,
    *arguments: str,
    patience: float = _PATIENCE,
    fine: tuple[int, ...] = (0,),
    env: Mapping[str, str] | None = None,
) -> str:
    command = [shutil.which(program, path=_SEARCH) or program, *arguments]
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=patience,
            pass_fds=held(),
            env={**os.environ, **(env or {})},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxError(f"{program} does not work: {error}") from error
    if result.returncode not in fine:
        # e2fsck says on the one what is wrong, and on the other that something is.
        said = f"{result.stdout.strip()} {result.stderr.strip()}".strip()[:500]
        raise SandboxError(f"{program} failed: {said or f'exit code {result.returncode}'}")
    return result.stdout
