"""The backend processes, as the supervisor sees them: asked, cancelled, killed and replaced."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .settings import Settings

__all__ = ("Answer", "Crew", "HangError", "Worker")

ROOT = Path(__file__).parents[2]

_LINE = 16 * 1024 * 1024
"""Bytes of an answer at most."""

_START = 120.0
"""Seconds that a worker may take to begin."""


class HangError(Exception):
    """An operation did not end."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """How a deed ended: with a result, an error, cancelled, or with the worker."""

    result: Any = None
    error: dict[str, Any] | None = None
    cancelled: bool = False
    died: bool = False

    @property
    def ok(self) -> bool:
        """Whether it was acknowledged."""
        return self.error is None and not self.cancelled and not self.died


@dataclass
class Worker:
    """A backend process in one of its lives."""

    slot: int
    life: int
    process: asyncio.subprocess.Process
    log: Path
    waiting: dict[int, asyncio.Future[Answer]] = field(default_factory=dict[int, asyncio.Future[Answer]])
    ids: itertools.count[int] = field(default_factory=itertools.count)

    def send(self, order: dict[str, Any]) -> None:
        """Tell it something; one that has died does not hear it."""
        assert self.process.stdin is not None
        if not self.process.stdin.is_closing():
            self.process.stdin.write(json.dumps(order).encode() + b"\n")

    async def ask(self, deed: str, args: dict[str, Any], *, patience: float, cancel_after: float | None) -> Answer:
        """Have it do something.

        Raises:
            HangError: There was no answer in time; where it stands is in its log by then.
        """
        id = next(self.ids)
        answer = self.waiting[id] = asyncio.get_running_loop().create_future()
        if self.process.returncode is not None:
            return Answer(died=True)
        self.send({"id": id, "deed": deed, "args": args})
        if cancel_after is not None:
            asyncio.get_running_loop().call_later(cancel_after, self.send, {"cancel": id})
        try:
            return await asyncio.wait_for(answer, patience)
        except TimeoutError:
            os.kill(self.process.pid, signal.SIGUSR1)
            raise HangError(f"worker {self.slot} did not end {deed!r} in {patience:g} s; see {self.log}") from None
        finally:
            self.waiting.pop(id, None)

    async def listen(self) -> None:
        """Hand out its answers until it dies; what it did not answer then, nobody knows."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            said = json.loads(line)
            future = self.waiting.get(said.get("id", -1))
            if future is not None and not future.done():
                future.set_result(
                    Answer(result=said.get("result"), error=said.get("error"), cancelled=said.get("cancelled", False))
                )
        await self.process.wait()
        for future in self.waiting.values():
            if not future.done():
                future.set_result(Answer(died=True))


class Crew:
    """All workers; the first is never killed, so that what grows with time shows in it."""

    def __init__(self, settings: Settings, logs: Path) -> None:
        self._settings = settings
        self._logs = logs
        self._lives = itertools.count()
        self._listeners: list[asyncio.Task[None]] = []
        self.workers: list[Worker] = []

    @property
    def veteran(self) -> Worker:
        """The one that lives as long as the run."""
        return self.workers[0]

    async def start(self, count: int) -> None:
        """Start so many."""
        self.workers = list(await asyncio.gather(*(self._started(slot) for slot in range(count))))

    async def kill(self, slot: int) -> None:
        """Kill one, without a word to it, and start another in its place."""
        worker = self.workers[slot]
        worker.process.kill()
        await worker.process.wait()
        self.workers[slot] = await self._started(slot)

    async def end(self) -> None:
        """End them all."""
        for worker in self.workers:
            if worker.process.stdin is not None:
                worker.process.stdin.close()
        for worker in self.workers:
            try:
                await asyncio.wait_for(worker.process.wait(), 30)
            except TimeoutError:
                worker.process.kill()
                await worker.process.wait()
        self.workers.clear()

    def complaints(self) -> list[str]:
        """What the workers' logs say that nobody should ever read there."""
        signs = ("never retrieved", "never awaited", "Exception ignored", "Task was destroyed")
        return [
            f"{log.name}: {line.strip()[:300]}"
            for log in sorted(self._logs.glob("worker-*.log"))
            for line in log.read_text(errors="replace").splitlines()
            if any(sign in line for sign in signs)
        ]

    async def _started(self, slot: int) -> Worker:
        life = next(self._lives)
        log = self._logs / f"worker-{slot}-{life}.log"
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.chaos.worker", self._settings.dump(),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=file, cwd=ROOT, limit=_LINE,
            )  # fmt: skip
        worker = Worker(slot, life, process, log)
        assert process.stdout is not None
        if not await asyncio.wait_for(process.stdout.readline(), _START):
            raise RuntimeError(f"a worker did not start: {log.read_text()[-2000:]}")
        self._listeners = [task for task in self._listeners if not task.done()]
        self._listeners.append(asyncio.create_task(worker.listen()))
        return worker
