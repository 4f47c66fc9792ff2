"""Containers that are started ahead, each over an empty directory, for users who have no files yet.

A file `<token>.ready` beside the directory `<token>` says that a container runs over it and may be claimed; deleting that
file is how it is claimed, which one process can do. Everything else follows: the directory gets the user's name, under
which the container's mount goes on showing it. The container keeps its name: a daemon that renames one which is just
being removed lists it, and withholds both its name and its place, until it is restarted.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path

from ..engines.base import ContainerInfo, Engine
from ..spec import DEFAULT_UID, ContainerSpec
from .directories import Home, UserDirectories
from .locking import locked
from .population import WARM_LABEL, Owner, Population

__all__ = ("WarmPool",)

_READY = ".ready"

_STALE = 60.0
"""Seconds after which whoever was preparing or claiming a container has been killed."""


class WarmPool:
    """The containers that wait for users; its methods block, and any number of processes may share one.

    Args:
        engine: Where they run.
        directories: Whose directories theirs become.
        population: What says whose they are.
        on_claim: Called, from the claimer's thread, when there is one fewer.
    """

    def __init__(
        self, engine: Engine, directories: UserDirectories, population: Population, on_claim: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._directories = directories
        self._population = population
        self._on_claim = on_claim

    def claim(self, spec: ContainerSpec, home: Home, owner: Owner) -> ContainerInfo | None:
        """Give a waiting container to a user who has no directory yet.

        Args:
            spec: What it has to be made from, but for its workspace.
            home: The user's directory, which becomes the container's.
            owner: Whose it is from now on.

        Returns:
            The container over the user's directory, running unless it ended just now; `None` if there is none.
        """
        folder = self._folder(spec)
        for ready in folder.glob(f"*{_READY}"):
            try:
                id = ready.read_text()
                ready.unlink()
            except FileNotFoundError:
                # Somebody else was faster.
                continue
            token = ready.name.removesuffix(_READY)
            self._population.claim(token, owner)
            self._directories.storage.move(folder / token, home.path)
            self._on_claim()
            labels = self._population.warm_labels(token)
            spec = spec.model_copy(update={"workspace": home.path, "uid": home.path.stat().st_uid})
            return ContainerInfo(id=id, name=_name(token), spec=spec, running=True, status="running", labels=labels)
        return None

    def refill(
        self, spec: ContainerSpec, count: int, one_more: Callable[[], AbstractContextManager[None]]
    ) -> Iterator[ContainerInfo]:
        """Start containers until `count` of them wait, and yield each that was started.

        Args:
            spec: What to make them from, but for the workspace.
            count: How many are to wait.
            one_more: Context in which one may be made; raises if there is no room.
        """
        folder = self._folder(spec)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(folder.with_suffix(".lock")):
            alive = {info.labels[WARM_LABEL] for info in self._waiting()}
            waiting = sum(ready.name.removesuffix(_READY) in alive for ready in folder.glob(f"*{_READY}"))
            for _ in range(count - waiting):
                yield self._start(spec, folder, one_more)

    def waiting(self) -> list[ContainerInfo]:
        """Those that nobody has claimed."""
        return list(self._waiting())

    def tidy(self) -> None:
        """Remove directories whose container has ended, and what is left of preparations and claims that broke off."""
        if not self._root.is_dir():
            return
        containers = {info.labels[WARM_LABEL]: info for info in self._waiting()}
        for directory in self._root.glob("*/*"):
            if directory.suffix == _READY or _age(directory) < _STALE:
                continue
            token = directory.name
            info = containers.get(token)
            ready = directory.with_suffix(_READY)
            if info is not None and ready.exists():
                continue
            ready.unlink(missing_ok=True)
            if info is not None:
                self._engine.remove(info.id)
            self._directories.storage.delete(directory)

    # ---

    @property
    def _root(self) -> Path:
        return self._directories.own / "warm"

    def _folder(self, spec: ContainerSpec) -> Path:
        """Where those wait that were made from this spec, over directories kept like a new user's.

        What differs between users does not count.
        """
        digest = spec.model_copy(update={"workspace": self._root, "uid": DEFAULT_UID}).digest()
        return self._root / f"{self._directories.storage.level}-{digest}"

    def _waiting(self) -> Iterator[ContainerInfo]:
        for info in self._population.all():
            if WARM_LABEL in info.labels and info.running and self._population.owner(info) is None:
                yield info

    def _start(
        self, spec: ContainerSpec, folder: Path, one_more: Callable[[], AbstractContextManager[None]]
    ) -> ContainerInfo:
        token = secrets.token_hex(8)
        directory = folder / token
        storage = self._directories.storage
        storage.create(directory, DEFAULT_UID)
        info = None
        try:
            uid = self._engine.prepare_workspace(directory, is_session=True)
            spec = spec.model_copy(update={"workspace": directory, "uid": uid})
            with one_more():
                info, _ = self._engine.create(spec, _name(token), self._population.warm_labels(token))
            self._engine.start(info.id)
            # Its runner listens: whoever claims it need not wait for that.
            self._engine.connect(info.id).sock.close()
            draft = directory.with_suffix(".draft")
            draft.write_text(info.id)
            draft.replace(directory.with_suffix(_READY))
        except BaseException:
            if info is not None:
                self._engine.remove(info.id)
            storage.delete(directory)
            raise
        return replace(info, running=True, status="running")


def _name(token: str) -> str:
    """What the container of this token is called, also when it has a user."""
    return f"sandbox-warm-{token}"


def _age(path: Path) -> float:
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime
    return 0.0
