"""Which storage to use, found out by trying what the host can do."""

from __future__ import annotations

from pathlib import Path

from ...errors import SandboxError
from .base import Storage
from .plain import PlainStorage

__all__ = ("choose_storage",)


def choose_storage(root: Path, quota: int | None, *, require_hard: bool) -> Storage:
    """The best storage there is for directories under a root.

    Args:
        root: Where they are.
        quota: Bytes that each may hold; `None`: any number.
        require_hard: Take nothing that the kernel does not enforce.

    Raises:
        SandboxError: There is nothing better than the soft quota, and it has to be.
    """
    if quota is not None and require_hard:
        raise SandboxError("no hard quota can be had here")
    return PlainStorage(root, quota)
