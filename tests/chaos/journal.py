"""What was begun and how it ended, in a file that is only ever appended to and in memory by user."""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

__all__ = ("Journal",)

_KEPT = 4_000
"""Entries that are kept in memory of each user, and of the faults."""

_SYNCED = 1.0
"""Seconds between writing the file through to the disk."""


class Journal:
    """Written by the supervisor, which is never killed; a worker's answer counts from when it is in the pipe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("a", encoding="utf-8")
        self._start = time.monotonic()
        self._synced = self._start
        self._recent: dict[str, deque[dict[str, Any]]] = defaultdict(lambda: deque(maxlen=_KEPT))

    def note(self, user: str, **fields: Any) -> None:
        """Add an entry; `""` is the user of what concerns everybody."""
        entry = {"t": round(time.monotonic() - self._start, 3), "user": user, **fields}
        self._recent[user].append(entry)
        self._file.write(json.dumps(entry) + "\n")
        if time.monotonic() - self._synced > _SYNCED:
            self._synced = time.monotonic()
            self.sync()

    def about(self, user: str, index: int | None, count: int) -> list[str]:
        """The last entries about a user's file, what concerns all of the user's files, and the faults, in order of time."""
        own = [entry for entry in self._recent[user] if index is None or entry.get("index") in (None, index)]
        entries = sorted([*own, *self._recent[""]], key=lambda entry: entry["t"])
        return [json.dumps(entry, ensure_ascii=False) for entry in entries[-count:]]

    def sync(self) -> None:
        """Write the file through to the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write what is left and close the file."""
        self.sync()
        self._file.close()
