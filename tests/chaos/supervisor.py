"""Chooses what happens, remembers it, and compares."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.docker.own_daemon import OwnDaemon

from .census import Watch, at_rest, grown
from .crew import Answer, Crew, HangError, Worker
from .disk import Disk
from .faults import Faults
from .journal import Journal
from .model import UserModel, everybody
from .moves import MOVES
from .rules import Verdict, judged
from .settings import Settings
from .settling import check_checkpoints, check_files, containers_left, litter_of_manager, litter_of_users

__all__ = ("Plan", "Supervisor")

_PATIENCE = 300.0
"""Seconds after which an operation hangs: longer than all the deadlines that one can run into in turn."""

_LOOK = 5.0
"""Seconds between looking at what the workers occupy."""

_CALMING = 60.0
"""Seconds in which a worker at rest may still end what was begun: as long as the daemon has for its answers, and more."""

_SHOWN = 40
"""Entries of the journal that are shown with a complaint."""

_ENOUGH = 25
"""Complaints after which no more are shown."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how wild."""

    seconds: float
    seed: int
    lanes: int = 12
    """Operations at once."""
    pause: float = 0.12
    """Seconds between two operations of a lane, on average."""
    pace: float = 4.0
    """Seconds between two faults, on average."""
    workers: int = 3
    quota: str | None = None
    """What every user may have."""


@dataclass
class Report:
    """What was seen."""

    deeds: Counter[str] = field(default_factory=Counter[str])
    outcomes: Counter[str] = field(default_factory=Counter[str])
    errors: Counter[str] = field(default_factory=Counter[str])
    slowest: dict[str, float] = field(default_factory=dict[str, float])
    complaints: list[str] = field(default_factory=list[str])
    figures: dict[str, Any] = field(default_factory=dict[str, Any])


class Supervisor:
    """One run, from nothing to nothing left."""

    def __init__(self, plan: Plan, daemon: OwnDaemon, disk: Disk, folder: Path) -> None:
        host, logs, root = folder / "host", folder / "logs", disk.path / "users"
        for path in (host, logs):
            path.mkdir()
        self._plan = plan
        self._settings = Settings(url=daemon.url, root=str(root), host=str(host), quota=plan.quota)
        self._crew = Crew(self._settings, logs)
        self.journal = Journal(folder / "journal.jsonl")
        self._faults = Faults(daemon, disk, self._crew, self.journal, plan.seed, plan.pace)
        self._users = everybody()
        self._watch = Watch()
        self._over = asyncio.Event()
        self._veteran_rests = False
        self._rests: list[dict[str, Counter[str]]] = []
        self._worker_choice = random.Random(f"{plan.seed}/worker")
        self.report = Report()

    async def run(self) -> Report:
        """Everything; the report says what was wrong."""
        await self._crew.start(self._plan.workers)
        # Before anything goes wrong, so that what is compared with is what there is in good order.
        await self._rest()
        lanes = [asyncio.create_task(self._lane(number)) for number in range(self._plan.lanes)]
        others = [
            asyncio.create_task(work)
            for work in (self._faults.run(self._over), self._look(), self._rests_now_and_then())
        ]
        try:
            await self._until_over([*lanes, *others])
        finally:
            self._over.set()
            self.journal.note("", over=True)
            results = await asyncio.gather(*lanes, *others, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                self._complain(f"the supervisor failed: {result!r}")
        await self._settle()
        return self.report

    async def _until_over(self, tasks: list[asyncio.Task[None]]) -> None:
        """Wait until the time is up, or somebody failed, which ends it."""
        await asyncio.wait(tasks, timeout=self._plan.seconds, return_when=asyncio.FIRST_EXCEPTION)

    # --- operations

    async def _lane(self, number: int) -> None:
        moves, weights = [*MOVES], [*MOVES.values()]
        turn = 0
        while not self._over.is_set():
            turn += 1
            # Of its own, so that how one turned out does not change what comes next.
            chance = random.Random(f"{self._plan.seed}/{number}/{turn}")
            await asyncio.sleep(chance.expovariate(1 / self._plan.pause))
            [move] = chance.choices(moves, weights)
            user = chance.choice(self._users)
            try:
                await move(self, user, chance)
            except HangError as error:
                self.complain(str(error), user, None)

    async def ask(
        self, deed: str, user: UserModel, index: int | None, args: dict[str, Any], cancel_after: float | None
    ) -> tuple[Answer, Verdict | None]:
        """Have a worker do it, and judge how it ends."""
        worker = self._somebody()
        start = time.monotonic()
        fields = {"deed": deed, "index": index, "worker": f"{worker.slot}.{worker.life}", **args}
        self.journal.note(user.id, begin=fields, index=index, cancel_after=cancel_after)
        everything = {**args, "user": user.id, "index": index, "own_disks": self._plan.quota is not None}
        answer = await worker.ask(deed, everything, patience=_PATIENCE, cancel_after=cancel_after)
        seconds = time.monotonic() - start
        verdict = (
            judged(deed, answer.error, own_disks=self._plan.quota is not None) if answer.error is not None else None
        )
        self._count(deed, answer, verdict, seconds)
        self.journal.note(
            user.id, end=deed, index=index, took=round(seconds, 3), result=None if answer.error else str(answer.result)[:100],
            error=answer.error and f"{answer.error['type']}: {answer.error['text'][:200]}",
            cancelled=answer.cancelled, died=answer.died,
        )  # fmt: skip
        if verdict is not None and verdict.complaint is not None:
            self.complain(verdict.complaint, user, index)
        if answer.cancelled and cancel_after is None:
            self.complain(f"{deed} was cancelled by nobody", user, index)
        return answer, verdict

    def _somebody(self) -> Worker:
        workers = self._crew.workers[1:] if self._veteran_rests else self._crew.workers
        # Not one that was just killed: what is never begun is no test of anything.
        alive = [worker for worker in workers if worker.process.returncode is None]
        return self._worker_choice.choice(alive or workers)

    def _count(self, deed: str, answer: Answer, verdict: Verdict | None, seconds: float) -> None:
        if answer.error is not None:
            outcome = verdict.outcome if verdict is not None else "error"
            self.report.errors[answer.error["type"]] += 1
        else:
            outcome = "cancelled" if answer.cancelled else "died" if answer.died else "ok"
        self.report.deeds[deed] += 1
        self.report.outcomes[outcome] += 1
        self.report.slowest[deed] = max(seconds, self.report.slowest.get(deed, 0.0))

    # --- complaints

    def complain(self, text: str, user: UserModel, index: int | None) -> None:
        """Report that something is not as it has to be, with what led there."""
        about = "\n".join(self.journal.about(user.id, index, _SHOWN))
        self._complain(f"user {user.id!r}, file {index}: {text}", about)

    def _complain(self, text: str, about: str = "") -> None:
        self.report.complaints.append(text)
        self.journal.note("", complaint=text[:300])
        if len(self.report.complaints) <= _ENOUGH:
            print(f"COMPLAINT (seed {self._plan.seed}) {text}\n{about}", flush=True)

    # --- resources

    async def _look(self) -> None:
        while not self._over.is_set():
            for worker in self._crew.workers:
                if (excess := self._watch.look(worker.process.pid, remember=worker is self._crew.veteran)) is not None:
                    self._complain(excess)
            await self._pause(_LOOK)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not beyond the end."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)

    async def _rests_now_and_then(self) -> None:
        pause = max(30.0, self._plan.seconds / 8)
        while True:
            await self._pause(pause)
            if self._over.is_set():
                return
            await self._rest()

    async def _rest(self) -> None:
        """Have the worker that lives longest let go of everything, and count what it has then."""
        veteran = self._crew.veteran
        self._veteran_rests = True
        try:
            while veteran.waiting:
                await asyncio.sleep(0.1)
            await veteran.ask("rest", {}, patience=_PATIENCE, cancel_after=None)
            await self._count_at_rest(veteran)
        finally:
            self._veteran_rests = False
        # The first was before anything was used.
        for more in grown(self._rests[min(1, len(self._rests) - 1)], self._rests[-1]):
            self._complain(f"at rest number {len(self._rests)}: {more}")

    async def _count_at_rest(self, veteran: Worker) -> None:
        """Count until there is no more than before, or for a while: what nobody waits for any more ends in its own time."""
        give_up = time.monotonic() + _CALMING
        while True:
            answer = await veteran.ask("census", {}, patience=_PATIENCE, cancel_after=None)
            count = at_rest(answer.result)
            before = self._rests[1] if len(self._rests) > 1 else count
            if not grown(before, count) or time.monotonic() > give_up:
                self._rests.append(count)
                return
            await asyncio.sleep(1)

    # --- the end

    async def _settle(self) -> None:
        """When nothing is wrong any more: is everything right?"""
        figures = self.report.figures
        figures["files at the end"] = await check_files(self, self._users)
        figures["checkpoints at the end"] = check_checkpoints(self, self._users, self._settings)
        for user in self._users:
            await self.ask("stop", user, None, {}, None)
        await self._rest()
        for path in litter_of_users(self._users, self._settings):
            self._complain(f"left in a user's directory: {path!r}")
        await self._delete_everybody()
        self._figures_of_resources()
        if (growth := self._watch.growth()) is not None:
            self._complain(growth)
        await self._crew.end()
        for line, count in Counter(self._crew.complaints()).items():
            self._complain(f"{line} ({count} times)")
        for left in await containers_left(self._settings.url):
            self._complain(f"left at the daemon: {left}")
        await self._check_litter()
        self.journal.close()

    async def _check_litter(self) -> None:
        """With no container and no other worker left, one that tidies leaves nothing."""
        await self._crew.start(1)
        await self._crew.veteran.ask("sweep", {}, patience=_PATIENCE, cancel_after=None)
        await self._crew.end()
        for path in litter_of_manager(self._settings):
            self._complain(f"left under the root: {path!r}")

    def _figures_of_resources(self) -> None:
        history = self._watch.history
        self.report.figures |= {
            "most of a worker": self._watch.peak,
            "MiB of the worker that is never killed": [
                sample.memory >> 20 for sample in history[:: max(1, len(history) // 20)]
            ],
            "at rest": [{what: sum(count.values()) for what, count in rest.items()} for rest in self._rests],
            "faults": dict(self._faults.count),
        }

    async def _delete_everybody(self) -> None:
        root = self._settings.root_path
        ids = [_recorded_user(record) for record in root.glob("*.owner.json")]
        for id in sorted({*ids, *(user.id for user in self._users)}):
            answer, _ = await self.ask("delete", UserModel(id), None, {"files": True}, None)
            if not answer.ok:
                self._complain(f"{id!r} cannot be deleted: {answer}")


def _recorded_user(record: Path) -> str:
    """Whose directory a record beside it is about."""
    return json.loads(record.read_text())["user_id"]
