"""Who works on what lies in the manager's folder, known by locks that end with whoever holds them."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

from ...errors import SandboxError

__all__ = ("abandoned", "alone", "at_work", "held", "is_held")

_STALE = 600.0
"""Seconds in which nothing is taken for abandoned: whoever made it may not have come to mark it yet."""

_PATIENCE = 120.0
"""Seconds to wait for a lock."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05

_held: ContextVar[tuple[int, ...]] = ContextVar("held", default=())


def held() -> tuple[int, ...]:
    """The locks that `alone` holds here, for the programs that are started meanwhile.

    A program goes on when we are killed, and nobody is alone before it has ended: two that mount the same image at the same
    time would give it two file systems.
    """
    return _held.get()


@contextmanager
def alone(lock: Path) -> Generator[None]:
    """Hold the lock that a file stands for, in this process and in every program that is started in here.

    The file may be deleted in here.

    Raises:
        SandboxError: It did not become free.
    """
    descriptor = _acquired(lock)
    token = _held.set((*_held.get(), descriptor))
    try:
        yield
    finally:
        _held.reset(token)
        os.close(descriptor)


def is_held(lock: Path) -> bool:
    """Whether somebody is alone there, or a program is still at work that whoever was had started before being killed."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _acquired(lock: Path) -> int:
    give_up = time.monotonic() + _PATIENCE
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            _wait(descriptor, lock, give_up)
            # Otherwise whoever had it deleted it: what we hold is no longer what others lock.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), lock.lstat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _wait(descriptor: int, lock: Path, give_up: float) -> None:
    pause = _FIRST_PAUSE
    while not _try_lock(descriptor):
        if time.monotonic() > give_up:
            raise SandboxError(f"{lock} stays locked by another process, for more than {_PATIENCE:g} s")
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


@contextmanager
def at_work(path: Path) -> Generator[None]:
    """Mark a file or directory of ours as being worked on, until the end of this or of the process."""
    if not _can_be_marked(path):
        # A link or a pipe, which goes in one step.
        yield
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def abandoned(folder: Path, pattern: str = "*") -> Generator[Path]:
    """What nobody works on any more in a folder; each is marked until the next is asked for."""
    for path in folder.glob(pattern):
        # Somebody else may be tidying, too.
        with suppress(FileNotFoundError):
            if time.time() - path.lstat().st_ctime <= _STALE:
                continue
            if not _can_be_marked(path):
                yield path
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                if _try_lock(descriptor):
                    yield path
            finally:
                os.close(descriptor)


def _can_be_marked(path: Path) -> bool:
    mode = path.lstat().st_mode
    return stat.S_ISDIR(mode) or stat.S_ISREG(mode)


def _try_lock(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
