"""What supervisor and workers have to agree on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

__all__ = ("IDLE", "Settings")

IDLE = 25
"""Seconds after which an unused sandbox ends itself: short enough to happen."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a worker is told when it is started."""

    url: str
    """Where the daemon is."""
    root: str
    """Host directory of the users' directories."""
    host: str
    """Host directory for files that are copied in and out."""
    quota: str | None
    """What every user may have, which gives each a file system of its own."""

    def dump(self) -> str:
        """As an argument of a command line."""
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, text: str) -> Self:
        """The opposite of `dump`."""
        return cls(**json.loads(text))

    @property
    def root_path(self) -> Path:
        """`root` as a path."""
        return Path(self.root)
