"""Copies of a user's directory to come back to, each of them whole or not there at all."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import secrets
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic_ai.workspaces import WorkspaceUnavailableError

from ..engines.base import Engine, completed
from ..errors import ChannelError
from ..lifecycle import Lifecycle
from ..trees import copy_tree, remove_tree, sync_folder
from .attaching import attached
from .directories import UserDirectories
from .identity import directory_name
from .locking import locked
from .population import Population
from .storage.working import abandoned, at_work

__all__ = ("Checkpoint", "Checkpoints")

T = TypeVar("T")

Proceed = Callable[[int], None]
"""Called now and then while copying; raises to break it off."""

_ID = re.compile(r"[0-9]{8}T[0-9]{12}Z-[0-9a-f]{6}")

_FILES, _FACTS = "files", "checkpoint.json"

_MARK = ".mark"
"""Ending of the file beside a fork that is being made."""

_FREEZE = 600.0
"""Seconds that a copy may take before the sandbox's processes go on beneath it."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A user's directory as it once was."""

    id: str
    created: datetime
    bytes: int
    """What its files occupied."""
    files: int
    skipped: int
    """Entries that a copy cannot have: pipes, sockets, devices."""


class Checkpoints:
    """Makes, lists, restores and deletes checkpoints of users' directories, and copies a directory for another user."""

    def __init__(self, engine: Engine, directories: UserDirectories, population: Population) -> None:
        self._engine = engine
        self._directories = directories
        self._population = population

    async def make(self, user_id: str) -> Checkpoint:
        """Copy the user's directory; processes in the user's sandboxes stand still meanwhile.

        Raises:
            FileNotFoundError: The user has no directory.
        """
        async with self._still(user_id):
            return await _in_thread(partial(self._make, user_id))

    def list(self, user_id: str) -> list[Checkpoint]:
        """The user's checkpoints, oldest first; blocks."""
        folder = self._folder(user_id)
        if not folder.is_dir():
            return []
        return [self._read(path) for path in sorted(folder.iterdir()) if _ID.fullmatch(path.name)]

    async def restore(self, user_id: str, id: str) -> None:
        """Put a checkpoint in the place of the user's directory; the user's sandboxes are ended.

        Raises:
            FileNotFoundError: There is no such checkpoint.
        """
        await _in_thread(partial(self._restore, user_id, id))

    async def fork(self, user_id: str, new_user_id: str) -> None:
        """Give a user without a directory a copy of another's.

        Raises:
            FileNotFoundError: The one has no directory.
            FileExistsError: The other has one.
        """
        async with self._still(user_id):
            await _in_thread(partial(self._fork, user_id, new_user_id))

    def delete(self, user_id: str, id: str) -> None:
        """Delete a checkpoint; blocks.

        Raises:
            FileNotFoundError: There is no such checkpoint.
        """
        with self._exclusively(user_id):
            path = self._existing(user_id, id)
            # Under a name that is none, so that half of it is never taken for a checkpoint.
            gone = path.with_name(f".deleting-{secrets.token_hex(8)}")
            path.rename(gone)
            remove_tree(gone.parent, gone.name)

    def delete_all(self, user_id: str) -> None:
        """Delete all of the user's checkpoints; blocks."""
        with self._exclusively(user_id):
            remove_tree(self._root, directory_name(user_id))

    # ---

    @property
    def _root(self) -> Path:
        return self._directories.own / "checkpoints"

    @property
    def _forks(self) -> Path:
        return self._directories.own / "forking"

    def _folder(self, user_id: str) -> Path:
        return self._root / directory_name(user_id)

    @asynccontextmanager
    async def _still(self, user_id: str) -> AsyncGenerator[None]:
        """Everything in the user's sandboxes stands still in here; their runners let it go on, whatever becomes of us."""
        found = await completed(self._engine.submit(lambda: self._population.of(user_id)))
        async with AsyncExitStack() as stack:
            for info in found:
                if info.running:
                    lifecycle = stack.enter_context(attached(self._engine, info))
                    await self._freeze(lifecycle, stack)
            yield

    @staticmethod
    async def _freeze(lifecycle: Lifecycle, stack: AsyncExitStack) -> None:
        try:
            runner = await lifecycle.client()
        except WorkspaceUnavailableError:
            # One that has just ended stands still, too.
            return
        try:
            await stack.enter_async_context(runner.freeze(_FREEZE))
        except ChannelError:
            if not runner.never_begun:
                raise

    @contextmanager
    def _exclusively(self, user_id: str) -> Generator[Path]:
        folder = self._folder(user_id)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(folder.with_suffix(".lock")):
            folder.mkdir(mode=0o700, exist_ok=True)
            self._tidy(folder)
            yield folder

    @staticmethod
    def _tidy(folder: Path) -> None:
        """Remove what was broken off: nobody else is at work here while we hold the lock."""
        for path in folder.iterdir():
            if not _ID.fullmatch(path.name):
                remove_tree(folder, path.name)

    def _make(self, user_id: str, proceed: Proceed) -> Checkpoint:
        with self._exclusively(user_id) as folder:
            source = self._usable(user_id)
            draft = folder / f".making-{secrets.token_hex(8)}"
            draft.mkdir(mode=0o700)
            now = datetime.now(UTC)
            path = folder / f"{now:%Y%m%dT%H%M%S%f}Z-{secrets.token_hex(3)}"
            try:
                copy = copy_tree(source, draft / _FILES, proceed=proceed)
                facts = {"bytes": copy.bytes, "files": copy.files, "skipped": copy.skipped, "created": now.isoformat()}
                _write_durably(draft / _FACTS, json.dumps(facts))
                draft.rename(path)
            except BaseException:
                # At once: it may be what there was no room for.
                remove_tree(folder, draft.name)
                raise
            sync_folder(folder)
            return self._read(path)

    def _restore(self, user_id: str, id: str, proceed: Proceed) -> None:
        with self._exclusively(user_id):
            source = self._existing(user_id, id) / _FILES
            with self._directories.hold(user_id) as home:
                for info in self._population.of(user_id):
                    self._engine.remove(info.id)
                home.ensure(source.stat().st_uid)
                home.storage.replace(
                    home.path, lambda target: copy_tree(source, target, proceed=proceed, into_existing=True)
                )

    def _fork(self, user_id: str, new_user_id: str, proceed: Proceed) -> None:
        with self._exclusively(user_id), self._directories.hold(new_user_id) as home:
            source = self._usable(user_id)
            if home.exists:
                raise FileExistsError(errno.EEXIST, f"{new_user_id!r} has a directory already", str(home.path))
            with self._forking() as draft:
                home.storage.create(draft, source.stat().st_uid)
                try:
                    copy_tree(source, draft, proceed=proceed, into_existing=True)
                    home.storage.move(draft, home.path)
                except BaseException:
                    home.storage.delete(draft)
                    raise

    @contextmanager
    def _forking(self) -> Generator[Path]:
        """Where to make a directory before it gets its name; a file beside it says that somebody is at it."""
        self._forks.mkdir(mode=0o700, exist_ok=True)
        draft = self._forks / secrets.token_hex(8)
        mark = draft.with_suffix(_MARK)
        mark.touch(mode=0o600, exist_ok=False)
        try:
            with at_work(mark):
                yield draft
        finally:
            mark.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what whoever was killed in the midst of a fork has left; blocks."""
        for mark in abandoned(self._forks, f"*{_MARK}"):
            self._directories.storage.delete(mark.with_suffix(""))
            mark.unlink(missing_ok=True)

    def _usable(self, user_id: str) -> Path:
        path = self._directories.path(user_id)
        if not self._directories.is_there(user_id):
            raise FileNotFoundError(errno.ENOENT, f"{user_id!r} has no directory", str(path))
        self._directories.storage.open(path)
        return path

    def _existing(self, user_id: str, id: str) -> Path:
        path = self._folder(user_id) / id
        if not _ID.fullmatch(id) or not path.is_dir():
            raise FileNotFoundError(errno.ENOENT, f"{user_id!r} has no such checkpoint", id[:80])
        return path

    @staticmethod
    def _read(path: Path) -> Checkpoint:
        facts = json.loads((path / _FACTS).read_text(encoding="utf-8"))
        return Checkpoint(
            id=path.name,
            created=datetime.fromisoformat(facts["created"]),
            bytes=facts["bytes"],
            files=facts["files"],
            skipped=facts["skipped"],
        )


async def _in_thread(call: Callable[[Proceed], T]) -> T:
    """Run long work in a thread; it breaks off soon after we are cancelled."""
    given_up = threading.Event()

    def proceed(_: int) -> None:
        if given_up.is_set():
            raise InterruptedError(errno.EINTR, "nobody waits for it any more")

    future = asyncio.get_running_loop().run_in_executor(None, call, proceed)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        given_up.set()
        # Its failure is nobody's any more either, and not to be reported as one that was forgotten.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise


def _write_durably(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)
