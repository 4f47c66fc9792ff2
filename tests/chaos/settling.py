"""What has to be so when it is over: every file right, every checkpoint whole, nothing left."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic_ai_sandbox.engines.docker.client import connect_daemon
from pydantic_ai_sandbox.engines.docker.containers import list_containers, listed_name
from pydantic_ai_sandbox.sessions.identity import directory_name

from .faults import MANAGED
from .model import UserModel
from .moves import Game, verify
from .people import ABSENT, file_name, index_of, recognised
from .settings import IDLE, Settings

__all__ = ("check_checkpoints", "check_files", "containers_left", "litter_of_manager", "litter_of_users")

_RUNNER_VOLUME = "pydantic-ai-sandbox-runner-"
"""Volumes that stay on purpose."""


async def check_files(game: Game, users: list[UserModel]) -> int:
    """Read everything once more; returns how many files there are."""
    found = 0
    for user in users:
        values = [await verify(game, user, file) for file in user.files]
        found += sum(value not in (None, ABSENT) for value in values)
    return found


def check_checkpoints(game: Game, users: list[UserModel], settings: Settings) -> int:
    """Look into every checkpoint on the disk; returns how many there are."""
    found = 0
    for user in users:
        folder = settings.root_path / ".manager/checkpoints" / directory_name(user.id)
        for known in user.checkpoints.values():
            files = folder / known.id / "files"
            if not files.is_dir():
                if not known.in_doubt:
                    game.complain(f"the checkpoint {known.id} is gone", user, None)
                continue
            found += 1
            if known.in_doubt:
                continue
            for index, possible in known.files.items():
                path = files / file_name(user.id, index)
                value = recognised(user.id, index, path.read_bytes()) if path.exists() else ABSENT
                if value not in possible:
                    game.complain(
                        f"the checkpoint {known.id} has {value!r}, possible is {sorted(possible)}", user, index
                    )
    return found


def litter_of_users(users: list[UserModel], settings: Settings) -> list[str]:
    """Files in users' directories that no user made."""
    return [
        f"{directory_name(user.id)}/{path}"
        for user in users
        for path in _files(settings.root_path / directory_name(user.id))
        if index_of(user.id, path) is None and not Path(path).name.startswith(".scratch-")
    ]


def litter_of_manager(settings: Settings) -> list[str]:
    """What is under the root when all users are deleted, but for locks and folders."""
    return [path for path in _files(settings.root_path) if not path.endswith(".lock")]


def _files(root: Path) -> Iterator[str]:
    for path in sorted(root.rglob("*")):
        if not path.is_dir() or path.is_symlink():
            yield str(path.relative_to(root))


async def containers_left(url: str) -> list[str]:
    """What of ours is at the daemon when nobody has used anything for longer than the idle time."""

    def look() -> list[str]:
        api: Any = connect_daemon(url, 30)
        try:
            containers = [f"container {listed_name(found)} ({found['Status']})" for found in list_containers(api)]
            volumes = [volume["Name"] for volume in api.volumes(filters=MANAGED)["Volumes"] or []]
            return [*containers, *(f"volume {name}" for name in volumes if not name.startswith(_RUNNER_VOLUME))]
        finally:
            api.close()

    give_up = time.monotonic() + IDLE + 40
    while left := await asyncio.to_thread(look):
        if time.monotonic() > give_up:
            return left
        await asyncio.sleep(1)
    return []
