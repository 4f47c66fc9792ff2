"""The users, what their files are called, and what stands in them: every line says whose it is."""

from __future__ import annotations

import hashlib
import re

__all__ = ("ABSENT", "FORKS", "PATHS", "USERS", "content", "file_name", "index_of", "mark_of", "recognised", "scratch")

USERS = (
    "alice",
    "Alice",
    "../../etc",
    "alice~",
    "ünïcode 🦊",
    "a" * 300,
    "-rf --\n",
    "CON.%00\t$(id)",
)
"""Plain, the same but for case, a way out, and what shells, terminals and file systems take for something else."""

PATHS = 18
"""Files that each user may have."""

ABSENT = "absent"
"""What is read where there is no file."""

FORKS = "/fork/"
"""Between a user's id and a number, in the id of a short-lived copy."""

_LINE = re.compile(rb"mark:([0-9a-f]{8}) p([0-9]+) ([0-9a-f]{12}) ([0-9]+)\n")

_HOSTILE_NAMES = {1: " blank", 2: "\nnewline", 3: "'\"$(id)`", 4: "\x1b[31m", 5: "ünï🦊"}


def mark_of(user: str) -> str:
    """What stands in every line of a user's files, and in their names."""
    return hashlib.sha256(user.partition(FORKS)[0].encode()).hexdigest()[:8]


def file_name(user: str, index: int) -> str:
    """Where a user's file is, relative to the user's directory."""
    return f"d{index % 3}/{mark_of(user)}-{index:02}{_HOSTILE_NAMES.get(index, '')}"


def index_of(user: str, name: str) -> int | None:
    """Which of the user's files has this name; `None` if none has."""
    return next((index for index in range(PATHS) if file_name(user, index) == name), None)


def scratch(user: str, nonce: str) -> str:
    """A name for what a command writes before it moves it; what a killed command leaves is its own affair."""
    return f".scratch-{mark_of(user)}-{nonce}"


def content(user: str, index: int, nonce: str, size: int) -> bytes:
    """What is written: whole lines, `size` bytes or a little more, the same for the same arguments."""
    line = f"mark:{mark_of(user)} p{index:02} {nonce} {size}\n".encode()
    return line * (size // len(line) + 1)


def recognised(user: str, index: int, data: bytes) -> str:
    """The nonce of what was once written to this file as a whole, or a description of what this is instead."""
    first = _LINE.match(data)
    if first is not None:
        nonce, size = first[3].decode(), int(first[4])
        if data == content(user, index, nonce, size):
            return nonce
    lines = sorted({line[0].decode() for line in re.finditer(_LINE, data)})
    return f"torn or foreign: {len(data)} bytes, {data.count(0)} of them 0, first at {data.find(0)}, with lines {lines[:8]}"
