"""What goes wrong beneath the workers, at random moments."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import docker.errors
import requests.exceptions

from pydantic_ai_sandbox.engines.docker.client import connect_daemon
from pydantic_ai_sandbox.engines.docker.containers import list_containers, listed_name
from pydantic_ai_sandbox.errors import EngineError
from tests.docker.own_daemon import OwnDaemon

from .crew import Crew
from .disk import Disk
from .journal import Journal

__all__ = ("LONGEST", "Faults")

LONGEST = 6.0
"""Seconds that anything is paused, frozen, full or away at most."""

MANAGED = {"label": "pydantic-ai-sandbox.managed"}

_UP = ("running", "paused")

_UNREACHABLE = (EngineError, docker.errors.DockerException, requests.exceptions.RequestException, OSError)


class Faults:
    """Makes faults until told to stop: of containers and workers in one row, of the daemon and the disk in another."""

    def __init__(self, daemon: OwnDaemon, disk: Disk, crew: Crew, journal: Journal, seed: int, pace: float) -> None:
        self._daemon = daemon
        self._disk = disk
        self._crew = crew
        self._journal = journal
        self._pace = pace
        self._random = {row: random.Random(f"{seed}/{row}") for row in ("near", "far")}
        self.count: Counter[str] = Counter()
        self._near: dict[Callable[[random.Random], Awaitable[None]], int] = {
            self._kill_container: 5,
            self._remove_container: 4,
            self._pause_container: 4,
            self._kill_worker: 3,
        }
        self._far: dict[Callable[[random.Random], Awaitable[None]], int] = {
            self._fill_disk: 4,
            self._freeze_daemon: 3,
            self._stop_daemon: 1,
            self._kill_daemon: 2,
        }

    async def run(self, over: asyncio.Event) -> None:
        """Make faults until it is over, and leave everything in order."""
        await asyncio.gather(
            self._row(self._near, self._random["near"], self._pace, over),
            self._row(self._far, self._random["far"], 2 * self._pace, over),
        )
        await self._on_daemon(_resume_all)

    async def _row(
        self,
        faults: dict[Callable[[random.Random], Awaitable[None]], int],
        chance: random.Random,
        pace: float,
        over: asyncio.Event,
    ) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), chance.uniform(0.3, 1.7) * pace)
            if over.is_set():
                return
            [fault] = chance.choices([*faults], [*faults.values()])
            await fault(chance)

    def _note(self, name: str, **fields: Any) -> None:
        self.count[name] += 1
        self._journal.note("", fault=name, **fields)

    # --- containers and workers

    async def _kill_container(self, chance: random.Random) -> None:
        await self._to_one(chance, "kill container", lambda api, found: api.kill(found))

    async def _remove_container(self, chance: random.Random) -> None:
        await self._to_one(chance, "remove container", lambda api, found: api.remove_container(found, force=True))

    async def _pause_container(self, chance: random.Random) -> None:
        seconds = chance.uniform(0.1, LONGEST)
        id = await self._to_one(chance, "pause container", lambda api, found: api.pause(found), seconds=seconds)
        if id is not None:
            await asyncio.sleep(seconds)
            await self._resume(id)

    async def _resume(self, id: str) -> None:
        # The daemon may be away just then; a container that stays paused would be a fault that nobody planned.
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            try:
                await self._on_daemon(lambda api: api.unpause(id), quiet=False)
            except docker.errors.APIError:
                return
            except _UNREACHABLE:
                await asyncio.sleep(0.2)
            else:
                self._journal.note("", resumed=id[:12])
                return

    async def _to_one(
        self, chance: random.Random, name: str, act: Callable[[Any, str], object], **fields: Any
    ) -> str | None:
        """Do something to one of our running containers, if there is one and the daemon is there."""
        pick = chance.random()

        def choose(api: Any) -> tuple[str, str] | None:
            found = sorted((one for one in list_containers(api) if one["State"] in _UP), key=listed_name)
            if not found:
                return None
            chosen = found[int(pick * len(found))]
            act(api, chosen["Id"])
            return chosen["Id"], listed_name(chosen)

        done = await self._on_daemon(choose)
        if done is None:
            return None
        self._note(name, container=done[1], id=done[0][:12], **fields)
        return done[0]

    async def _on_daemon(self, call: Callable[[Any], Any], *, quiet: bool = True) -> Any:
        def ask() -> Any:
            api = connect_daemon(self._daemon.url, 15)
            try:
                return call(api)
            finally:
                api.close()

        try:
            return await asyncio.to_thread(ask)
        except _UNREACHABLE:
            if not quiet:
                raise
            return None

    async def _kill_worker(self, chance: random.Random) -> None:
        slot = chance.randrange(1, len(self._crew.workers))
        self._note("kill worker", slot=slot, life=self._crew.workers[slot].life)
        await self._crew.kill(slot)

    # --- the daemon and the disk

    async def _fill_disk(self, chance: random.Random) -> None:
        seconds = chance.uniform(1, LONGEST)
        self._note("fill disk", seconds=seconds)
        await asyncio.to_thread(self._disk.fill)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._disk.free()
            self._journal.note("", disk="free")

    async def _freeze_daemon(self, chance: random.Random) -> None:
        seconds = chance.uniform(1, LONGEST)
        self._note("freeze daemon", seconds=seconds)
        self._daemon.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._daemon.send(signal.SIGCONT)
            self._journal.note("", daemon="thawed")

    async def _stop_daemon(self, chance: random.Random) -> None:
        await self._restart(chance, signal.SIGTERM)

    async def _kill_daemon(self, chance: random.Random) -> None:
        await self._restart(chance, signal.SIGKILL)

    async def _restart(self, chance: random.Random, how: signal.Signals) -> None:
        seconds, keep = chance.uniform(0, LONGEST / 2), chance.random() < 0.5
        options = ["--live-restore"] if keep else []
        self._note(f"{how.name} daemon", seconds=seconds, next=options)
        await asyncio.to_thread(self._daemon.stop, how)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(lambda: self._daemon.start(*options, fresh=False))
        self._journal.note("", daemon="started")


def _resume_all(api: Any) -> None:
    for container in api.containers(filters={**MANAGED, "status": "paused"}):
        with suppress(docker.errors.APIError):
            api.unpause(container["Id"])
