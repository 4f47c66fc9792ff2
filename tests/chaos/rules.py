"""Which errors may come out of an operation, and what they say about whether it was done."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ("Verdict", "judged")

Outcome = Literal["absent", "refused", "unknown"]

_COMMANDS = frozenset({"cat", "stream", "job", "write_by_command"})

_SESSIONS = frozenset({"ensure", "sessions", "stop"})
"""Deeds that are no file operation, so that no `OSError` of a file can come of them."""

_PACKAGES = ("pydantic_ai.", "pydantic_ai_sandbox.")

_ERRNOS = frozenset({errno.ENOENT, errno.ENOSPC, errno.EDQUOT, errno.EBUSY, errno.ETIMEDOUT})
"""What may be wrong with a file here; anything else, such as a permission, is a mistake of somebody's."""

_FAILED_DISK = frozenset({errno.EIO, errno.EROFS})

_REFUSALS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EBUSY})
"""What a file operation reports when it changed nothing."""


@dataclass(frozen=True)
class Verdict:
    """What an error means."""

    outcome: Outcome
    """No such file; nothing was changed; nobody knows."""
    complaint: str | None
    """Why it should not have come out; `None` if it may."""


def judged(deed: str, error: Mapping[str, Any], *, own_disks: bool = False) -> Verdict:
    """Judge an error, as a worker described it, that came out of a deed.

    Args:
        deed: What was to be done.
        error: What the worker says of it.
        own_disks: Whether every user has a file system of its own, which fails when the one beneath is full.
    """
    bases = error["bases"]
    return Verdict(
        _outcome(bases, error["errno"]), None if _allowed(deed, error, own_disks) else _complaint(deed, error)
    )


def _outcome(bases: list[str], number: int | None) -> Outcome:
    if "CapacityError" in bases or "EditError" in bases or "QuotaExceededError" in bases:
        return "refused"
    if _is_ours(bases):
        return "unknown"
    if "FileNotFoundError" in bases:
        return "absent"
    return "refused" if number in _REFUSALS else "unknown"


def _is_ours(bases: list[str]) -> bool:
    return "SandboxError" in bases or "WorkspaceError" in bases


def _allowed(deed: str, error: Mapping[str, Any], own_disks: bool) -> bool:
    bases, name = error["bases"], error["type"]
    if _is_ours(bases):
        # A user's sandbox always fits and its id is always valid.
        return name.startswith(_PACKAGES) and not {"InvalidUserIdError", "SpecMismatchError"} & set(bases)
    if deed == "job" and name == "builtins.LookupError":
        # A job's sandbox ended, and the next one does not know it.
        return True
    if not name.startswith("builtins.") or "OSError" not in bases or deed in _SESSIONS:
        return False
    if own_disks and error["errno"] in _FAILED_DISK:
        return True
    if deed in _COMMANDS:
        # There is always a directory to start in; only the disk may be full.
        return error["errno"] in _REFUSALS or (deed == "cat" and error["errno"] == errno.ENOENT)
    if deed == "fork" and error["errno"] == errno.EEXIST:
        return True
    return error["errno"] in _ERRNOS or "TimeoutError" in bases


def _complaint(deed: str, error: Mapping[str, Any]) -> str:
    return f"{deed} raised {error['type']}: {error['text']}\n{error['traceback']}"
