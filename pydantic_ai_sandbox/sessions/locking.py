"""Locks between the processes of a host, which end with the process that holds them."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ..errors import SandboxError

__all__ = ("locked",)

_PATIENCE = 120.0
"""Seconds to wait for a lock: longer than whoever holds one is allowed to wait for the engine."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


@contextmanager
def locked(path: Path, *, create: bool = True) -> Generator[None]:
    """Hold the lock that the file `path` stands for; blocks until it is free.

    Raises:
        FileNotFoundError: The file is not there, or was deleted while waiting, and `create` is false.
        SandboxError: It did not become free.
    """
    descriptor = _acquired(path, create)
    try:
        yield
    finally:
        os.close(descriptor)


def _acquired(path: Path, create: bool) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    give_up = time.monotonic() + _PATIENCE
    while True:
        descriptor = os.open(path, flags, 0o600)
        try:
            _wait(descriptor, path, give_up)
            if _is_the_same(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # Whoever had it deleted it: what we hold is no longer what others lock.
        os.close(descriptor)


def _wait(descriptor: int, path: Path, give_up: float) -> None:
    pause = _FIRST_PAUSE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise SandboxError(f"{path} stays locked by another process, for more than {_PATIENCE:g} s") from None
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        else:
            return


def _is_the_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
