"""What may be read: for every file the values it can have, given what was acknowledged and what is in doubt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from .people import ABSENT, PATHS, USERS

__all__ = ("FileModel", "KnownCheckpoint", "UserModel", "everybody")


@dataclass
class FileModel:
    """One file: `possible` has every value that it can have now; more than one when an outcome is unknown."""

    index: int
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    possible: set[str] = field(default_factory=lambda: {ABSENT})
    _attempted: set[str] = field(default_factory=set[str])
    _late: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    _watchers: list[set[str]] = field(default_factory=list[set[str]])

    @contextmanager
    def attempted(self, values: Iterable[str]) -> Generator[None]:
        """One of these values may come in here; only those who look meanwhile need to know."""
        self._attempted = set(values)
        self._show(values)
        try:
            yield
        finally:
            self._attempted = set()

    def _show(self, values: Iterable[str]) -> None:
        for watcher in self._watchers:
            watcher.update(values)

    def done(self, values: Iterable[str]) -> None:
        """One of these values was acknowledged."""
        self._forget_late()
        self.possible = {*values, *(value for value, _ in self._late)}
        self._show(self.possible)

    def unknown(self, values: Iterable[str], grace: float) -> None:
        """One of these values may have come, or may still come within `grace` seconds."""
        values = set(values)
        self._forget_late()
        self.possible |= values
        if grace > 0:
            self._late += [(value, time.monotonic() + grace) for value in values]
        self._show(values)

    def observed(self, value: str) -> bool:
        """A value was read; returns whether it is one that the file can have."""
        self._forget_late()
        if value not in self.possible:
            return False
        if not self._late:
            self.possible = {value}
        return True

    @property
    def certain(self) -> str | None:
        """Its only possible value."""
        self._forget_late()
        return next(iter(self.possible)) if len(self.possible) == 1 and not self._late else None

    @contextmanager
    def watched(self) -> Generator[set[str]]:
        """A set that gets every value that the file can have at any moment in here."""
        seen = self.possible | self._attempted
        self._watchers.append(seen)
        try:
            yield seen
        finally:
            # By identity: two watchers may have seen the same.
            self._watchers = [watcher for watcher in self._watchers if watcher is not seen]

    def _forget_late(self) -> None:
        now = time.monotonic()
        self._late = [(value, until) for value, until in self._late if until > now]


@dataclass
class KnownCheckpoint:
    """A checkpoint that was acknowledged, and what each file can be in it."""

    id: str
    files: dict[int, set[str]]
    in_doubt: bool = False
    """Whether it may have been deleted."""


class UserModel:
    """One user: files, checkpoints, and a lock that whatever concerns all of the files takes for itself."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.files = [FileModel(index) for index in range(PATHS)]
        self.checkpoints: dict[str, KnownCheckpoint] = {}
        self.stray_checkpoints = 0
        """Checkpoints that may be there beside those that were acknowledged."""
        self.forks = 0
        self._readers = 0
        self._turnstile = asyncio.Lock()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def shared(self) -> AsyncGenerator[None]:
        """Others who share work at the same time."""
        async with self._turnstile, self._changed:
            self._readers += 1
        try:
            yield
        finally:
            async with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @asynccontextmanager
    async def alone(self) -> AsyncGenerator[None]:
        """Nobody else works on this user's files."""
        async with self._turnstile:
            async with self._changed:
                await self._changed.wait_for(lambda: self._readers == 0)
            yield

    @contextmanager
    def watched(self) -> Generator[dict[int, set[str]]]:
        """For every file, every value that it can have at any moment in here."""
        with ExitStack() as stack:
            yield {file.index: stack.enter_context(file.watched()) for file in self.files}


def everybody() -> list[UserModel]:
    """All users, with no files yet."""
    return [UserModel(id) for id in USERS]
