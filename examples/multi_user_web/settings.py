"""What the application was started with; in the environment, because every worker process has to know."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ("Settings",)

_PREFIX = "MULTI_USER_WEB_"


@dataclass(frozen=True)
class Settings:
    """How the application runs."""

    root: Path
    """Directory with everything that stays: the users' workspaces in one folder, their conversations in another."""
    model: str | None
    """A model of Pydantic AI, such as `openai:gpt-5`; `None`: a script plays one."""
    max_sessions: int
    """Sandboxes at once, of all workers together."""
    queue_timeout: float
    """Seconds that a request waits for one to come free; 0: it is refused at once."""
    warm: int
    """Containers to keep started ahead for new users."""
    disk_quota: str
    """What a user's files may occupy."""
    idle_timeout: int
    """Seconds after which a sandbox that nobody uses ends."""

    @staticmethod
    def from_environment() -> Settings:
        """What the variables say, or what does for trying it out."""

        def value(name: str, default: str) -> str:
            return os.environ.get(_PREFIX + name, default)

        return Settings(
            root=Path(value("ROOT", "multi-user-web-data")).absolute(),
            model=value("MODEL", "") or None,
            max_sessions=int(value("MAX_SESSIONS", "50")),
            queue_timeout=float(value("QUEUE_TIMEOUT", "60")),
            warm=int(value("WARM", "2")),
            disk_quota=value("DISK_QUOTA", "256MiB"),
            idle_timeout=int(value("IDLE_TIMEOUT", "600")),
        )
