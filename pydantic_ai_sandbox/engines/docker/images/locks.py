"""One process at a time for each image, and the directory for what that takes."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ....errors import ImageBuildError
from ....runtimes import BuildProgress

__all__ = ("cache_directory", "one_at_a_time")

DEADLINE = 1800.0
"""Seconds that another process may take for the same image."""

_TELL = 2.0
"""Seconds between reports of still waiting, at which a caller can also call it off."""


@contextmanager
def one_at_a_time(tag: str, report: Callable[[BuildProgress], None]) -> Generator[None]:
    """Hold the lock for an image among this user's processes; the kernel releases it when a process dies.

    Raises:
        ImageBuildError: Another process held it for too long.
    """
    path = cache_directory() / f"{tag.replace('/', '-').replace(':', '-')}.lock"
    started = time.monotonic()
    told = 0.0
    while (lock := _try_lock(path)) is None:
        waited = time.monotonic() - started
        if waited > DEADLINE:
            raise ImageBuildError(
                f"another process has been making {tag} for {DEADLINE / 60:.0f} minutes; see what it waits for"
            )
        if waited >= told:
            report(
                BuildProgress(step="wait", message=f"Another process is making {tag}; waiting for it ({waited:.0f} s)")
            )
            told = waited + _TELL
        time.sleep(0.2)
    with lock:
        try:
            yield
        finally:
            path.unlink()


def _try_lock(path: Path) -> IO[bytes] | None:
    """The lock file, open and locked, or `None` while somebody else has it."""
    lock = path.open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Its owner removes it at the end; whoever locked the removed one has locked nothing.
        if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    lock.close()
    return None


def cache_directory() -> Path:
    """This user's directory for locks and for what a build writes on the way.

    Raises:
        ImageBuildError: It cannot be made.
    """
    directory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "pydantic-ai-sandbox")
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ImageBuildError(
            f"{directory} cannot be made: {error}; point XDG_CACHE_HOME at a directory you may write"
        ) from error
    return directory
