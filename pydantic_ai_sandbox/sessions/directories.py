"""The directories of users under one root, and the record of who owns each."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

from ..errors import SandboxError
from ..trees import remove_tree
from .identity import check_user_id, directory_name

__all__ = ("UserDirectories",)

_RECORD = ".owner.json"
"""Ending of the file beside a directory that says whose it is; no directory's name has a dot."""


class UserDirectories:
    """Maps user ids to directories directly under `root`; every method does I/O and blocks."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, user_id: str) -> Path:
        """Where the user's files are, or would be; no I/O.

        Raises:
            InvalidUserIdError: The id cannot be one.
        """
        return self._root / directory_name(user_id)

    def ensure(self, user_id: str) -> Path:
        """The user's directory, made if it is missing.

        Raises:
            InvalidUserIdError: The id cannot be one.
            SandboxError: What is there is not a directory, or belongs to another user.
        """
        path = self.path(user_id)
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._claim(path, user_id)
        path.mkdir(mode=0o700, exist_ok=True)
        # Not followed: a link in its place would put one user's sandbox over somebody else's files.
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise SandboxError(f"{path} is not a directory, so it cannot hold the files of {user_id!r}")
        return path

    def owners(self) -> list[str]:
        """The ids of all users who have a directory."""
        if not self._root.is_dir():
            return []
        return sorted(self._owner(record) for record in self._root.glob(f"*{_RECORD}"))

    def delete(self, user_id: str) -> bool:
        """Delete the user's files and the record; returns whether there were any."""
        path = self.path(user_id)
        existed = os.path.lexists(path)
        if existed:
            remove_tree(self._root, path.name)
        self._record(path).unlink(missing_ok=True)
        return existed

    def _claim(self, path: Path, user_id: str) -> None:
        record = self._record(path)
        try:
            # Created with its content or not at all: a link appears in one step.
            draft = record.with_name(f"{record.name}.{os.getpid()}.{os.urandom(4).hex()}")
            draft.write_text(json.dumps({"user_id": check_user_id(user_id)}), encoding="utf-8")
            try:
                os.link(draft, record)
            finally:
                draft.unlink()
        except FileExistsError:
            if (owner := self._owner(record)) != user_id:
                raise SandboxError(f"{path} belongs to {owner!r}, not to {user_id!r}") from None

    @staticmethod
    def _record(path: Path) -> Path:
        return path.with_name(path.name + _RECORD)

    @staticmethod
    def _owner(record: Path) -> str:
        try:
            return str(json.loads(record.read_text(encoding="utf-8"))["user_id"])
        except (ValueError, KeyError, TypeError) as error:
            raise SandboxError(f"{record} does not say whose directory it belongs to") from error
