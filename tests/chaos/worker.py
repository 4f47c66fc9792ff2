"""One backend process: does what lines on its standard input say, each in a task, and answers in lines on its output."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic_ai_sandbox import DockerEngine, SessionManager

from .deeds import DEEDS
from .settings import IDLE, Settings

_ENGINE_TIMEOUT = 20
"""Seconds for one answer of the daemon: more than it is ever frozen for."""


class Worker:
    """Does deeds, at once and in any number, until its input ends."""

    def __init__(self, settings: Settings) -> None:
        self._host = Path(settings.host)
        self._manager = SessionManager(
            workspace_root=settings.root,
            engine=DockerEngine(settings.url, timeout=_ENGINE_TIMEOUT),
            idle_timeout=IDLE,
            max_lifetime=240,
            max_sessions=10,
            max_sessions_per_user=2,
            queue_timeout=60.0,
            evict_after=0.5,
            warm={"python-minimal": 1},
            disk_quota=settings.quota,
        )
        self._tasks: dict[int, asyncio.Task[Any]] = {}

    async def serve(self) -> None:
        """Answer until the supervisor is gone."""
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        self._say({"ready": os.getpid()})
        while line := await reader.readline():
            order = json.loads(line)
            if (cancelled := order.get("cancel")) is not None:
                if (task := self._tasks.get(cancelled)) is not None:
                    task.cancel()
                continue
            task = asyncio.create_task(self._done(order))
            self._tasks[order["id"]] = task
            # Not by the task itself: one that is cancelled before it begins never runs.
            task.add_done_callback(partial(self._answer, order["id"]))

    async def _done(self, order: Mapping[str, Any]) -> Any:
        if order["deed"] == "census":
            return self._census()
        return await DEEDS[order["deed"]](self._manager, self._host, order["args"])

    def _answer(self, id: int, task: asyncio.Task[Any]) -> None:
        del self._tasks[id]
        if task.cancelled():
            self._say({"id": id, "cancelled": True})
        elif (error := task.exception()) is not None:
            self._say({"id": id, "error": described(error)})
        else:
            self._say({"id": id, "result": task.result()})

    def _census(self) -> dict[str, Any]:
        """What this process has, all of it garbage collected."""
        gc.collect()
        return {
            "descriptors": sorted(_targets()),
            "threads": sorted(thread.name for thread in threading.enumerate()),
            "tasks": sorted(str(task.get_coro()) for task in asyncio.all_tasks()),
        }

    @staticmethod
    def _say(answer: Mapping[str, Any]) -> None:
        print(json.dumps(answer), flush=True)


def _targets() -> list[str]:
    found: list[str] = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(link.readlink()))
        except FileNotFoundError:
            # The one that looks.
            continue
    return found


def described(error: BaseException) -> dict[str, Any]:
    """An error for the supervisor to judge."""
    return {
        "type": f"{type(error).__module__}.{type(error).__qualname__}",
        "bases": [base.__name__ for base in type(error).__mro__],
        "errno": getattr(error, "errno", None),
        "text": str(error)[:500],
        "traceback": "".join(traceback.format_exception(error))[-4000:],
    }


if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    asyncio.run(Worker(Settings.load(sys.argv[1])).serve())
    # Whatever still runs in threads is no reason to outlive the supervisor.
    os._exit(0)
