"""The directories of users under one root, the record of who owns each, and the lock on each."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import SandboxError
from .identity import check_user_id, directory_name
from .locking import locked
from .storage import MANAGER_FOLDER, Storage

__all__ = ("Home", "UserDirectories")

_RECORD = ".owner.json"
"""Ending of the file beside a directory that says whose it is; no directory's name has a dot."""


@dataclass(frozen=True)
class Home:
    """A user's directory, while nobody else makes, replaces or deletes it."""

    user_id: str
    path: Path
    storage: Storage
    is_new: bool
    """Whether nobody ever asked for this user before."""

    @property
    def exists(self) -> bool:
        """Whether there is one; what is in its place may be something else."""
        return os.path.lexists(self.path)

    def ensure(self, uid: int) -> None:
        """Make it, or make it usable.

        Args:
            uid: Who a new one belongs to.

        Raises:
            SandboxError: What is there is not a directory, or cannot be used.
        """
        if not self.exists:
            self.storage.create(self.path, uid)
            return
        # Not followed: a link in its place would put one user's sandbox over somebody else's files.
        if not stat.S_ISDIR(self.path.lstat().st_mode):
            raise SandboxError(f"{self.path} is not a directory, so it cannot hold the files of {self.user_id!r}")
        try:
            self.storage.open(self.path)
        except FileNotFoundError:
            self.storage.create(self.path, uid)


class UserDirectories:
    """Maps user ids to directories directly under a root. Building it does no I/O; its methods block.

    Args:
        root: The host directory they are in, made on first use.
        choose: Called once, with the root and the manager's own folder in place, for how they are kept.
    """

    def __init__(self, root: Path, choose: Callable[[Path], Storage]) -> None:
        self._given_root = root
        self._choose = choose
        self._lock = threading.Lock()
        self._chosen: Storage | None = None

    @cached_property
    def root(self) -> Path:
        """The root, made and resolved."""
        self._given_root.mkdir(mode=0o711, parents=True, exist_ok=True)
        return Path(os.path.realpath(self._given_root))

    @cached_property
    def own(self) -> Path:
        """The manager's own folder, which no tenant ever sees."""
        folder = self.root / MANAGER_FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    @property
    def storage(self) -> Storage:
        """How the directories are kept.

        Raises:
            SandboxError: Not as it was asked for.
        """
        with self._lock:
            if self._chosen is None:
                assert self.own
                self._chosen = self._choose(self.root)
            return self._chosen

    def path(self, user_id: str) -> Path:
        """Where the user's files are, or would be.

        Raises:
            InvalidUserIdError: The id cannot be one.
        """
        return self.root / directory_name(user_id)

    def is_there(self, user_id: str) -> bool:
        """Whether the user has a directory.

        Raises:
            InvalidUserIdError: The id cannot be one.
        """
        return self._record(self.path(user_id)).exists() and self.path(user_id).is_dir()

    @contextmanager
    def hold(self, user_id: str) -> Generator[Home]:
        """The user's directory, locked against everybody who makes sandboxes over it, in this process and others.

        Raises:
            InvalidUserIdError: The id cannot be one.
            SandboxError: The directory belongs to another user.
        """
        path = self.path(user_id)
        storage = self.storage
        record = self._record(path)
        with ExitStack() as stack:
            while True:
                is_new = self._claim(record, user_id)
                # Deleted in between, the user is a new one.
                with suppress(FileNotFoundError):
                    stack.enter_context(locked(record, create=False))
                    break
            yield Home(user_id, path, storage, is_new)

    def forget(self, home: Home) -> bool:
        """Delete all of the user's files and the record, for good; returns whether there were any."""
        existed = home.storage.delete(home.path)
        self._record(home.path).unlink(missing_ok=True)
        return existed

    def _claim(self, record: Path, user_id: str) -> bool:
        """Make sure that a record says the directory is this user's; returns whether it was made just now."""
        if record.exists():
            self._check_owner(record, user_id)
            return False
        # Created with its content or not at all: a link appears in one step.
        draft = self.own / f"{record.name}.{os.urandom(8).hex()}"
        try:
            draft.write_text(json.dumps({"user_id": check_user_id(user_id)}), encoding="utf-8")
            os.link(draft, record)
        except FileExistsError:
            self._check_owner(record, user_id)
            return False
        finally:
            # Also where the disk was too full for it to be written.
            draft.unlink(missing_ok=True)
        return True

    @staticmethod
    def _check_owner(record: Path, user_id: str) -> None:
        try:
            owner = str(json.loads(record.read_text(encoding="utf-8"))["user_id"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError) as error:
            raise SandboxError(f"{record} does not say whose directory it belongs to") from error
        if owner != user_id:
            raise SandboxError(f"{record} says that the directory belongs to {owner!r}, not to {user_id!r}")

    @staticmethod
    def _record(path: Path) -> Path:
        return path.with_name(path.name + _RECORD)
