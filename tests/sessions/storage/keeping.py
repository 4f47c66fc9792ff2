"""The ways of keeping users' directories, and what of them can be seen on the host."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pydantic_ai_sandbox.sessions.storage import LoopbackStorage, PlainStorage, Storage
from pydantic_ai_sandbox.sessions.storage.mounting import missing_programs

MIB = 1024 * 1024

QUOTA = 16 * MIB

UID = 10001


def _no_loopback() -> str:
    if os.geteuid() != 0:
        return "only root can mount file systems"
    if missing := missing_programs():
        return f"{', '.join(missing)} must be installed"
    return "" if Path("/dev/loop-control").exists() else "this machine has no loop devices"


needs_loopback = pytest.mark.skipif(bool(_no_loopback()), reason=_no_loopback())

MAKERS: dict[str, Callable[[Path], Storage]] = {
    "none": PlainStorage,
    "soft": lambda root: PlainStorage(root, QUOTA),
    "loopback": lambda root: LoopbackStorage(root, QUOTA),
}


def mounts(root: Path) -> list[Path]:
    """Where below a root something is mounted, in the order of mounting."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    found = (line.split()[4].encode().decode("unicode_escape") for line in lines)
    return [Path(path) for path in found if path.startswith(f"{root}/")]


def loops(root: Path) -> list[str]:
    """Loop devices over files that are, or were, below a root."""
    listed = subprocess.run(
        ["losetup", "--all", "--noheadings", "--output", "NAME,BACK-FILE"], capture_output=True, text=True, check=True
    ).stdout
    return [line for line in listed.splitlines() if f" {root}/" in line]


def reboot(root: Path) -> None:
    """Take every mount below a root away, as a restart of the machine does."""
    for path in reversed(mounts(root)):
        subprocess.run(["umount", "--lazy", str(path)], check=True, capture_output=True)


def programs(root: Path) -> list[str]:
    """Command lines of the programs that were started for something below a root and have not ended."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            command = process.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(root) in command:
                found.append(command)
    return found


def write(path: Path, **files: str) -> None:
    for name, content in files.items():
        (path / name).write_text(content)


def read(path: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in path.iterdir()}
