"""Trees as hostile code makes them, and a description of a tree to compare."""

from __future__ import annotations

import itertools
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

ODD_NAMES = (
    b"new\nline",
    b"\x1b[31mred",
    b"\xff\xfe",
    b"-rf",
    b" ",
    b"~",
    b"\xe2\x80\xaegpj.exe",
    b"x" * 255,
    b"a..b",
    b"\\",
)


def make_deep(top: Path, depth: int, name: str = "deep") -> None:
    """Directories in each other, with a file `leaf` in the last."""
    folder = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=folder)
        child = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
        os.close(folder)
        folder = child
    leaf = os.open("leaf", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=folder)
    os.write(leaf, b"leaf")
    os.close(leaf)
    os.close(folder)


def make_odd(top: Path) -> None:
    """A directory and a file in it for every odd name."""
    for name in ODD_NAMES:
        folder = os.path.join(os.fsencode(top), name)
        os.mkdir(folder)
        with open(os.path.join(folder, name), "wb") as file:
            file.write(name)


def make_special(top: Path) -> list[str]:
    """What is neither file, directory nor link, as far as we may make it; returns the names."""
    os.mkfifo(top / "fifo")
    names = ["fifo", "socket"]
    with socket.socket(socket.AF_UNIX) as listener:
        folder = os.open(top, os.O_RDONLY)
        # The path of a socket is short.
        listener.bind(f"/proc/self/fd/{folder}/socket")
        os.close(folder)
    if os.geteuid() == 0:
        # A disk that no driver answers for.
        os.mknod(top / "block", stat.S_IFBLK | 0o666, os.makedev(240, 200))
        os.mknod(top / "character", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        names += ["block", "character"]
    return sorted(names)


def described(top: Path) -> dict[str, tuple[object, ...]]:
    """Everything below a small tree by its path: kind, permissions, and content or where a link leads."""
    found: dict[str, tuple[object, ...]] = {}
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            content: object = None
            if stat.S_ISREG(status.st_mode):
                content = Path(path).read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            kind = stat.S_IFMT(status.st_mode)
            permissions = None if stat.S_ISLNK(status.st_mode) else stat.S_IMODE(status.st_mode)
            found[os.path.relpath(path, top)] = (kind, permissions, content)
    return found


_SWAP = """
import sys
from os import fsencode
from pydantic_ai_sandbox.trees.renaming import _EXCHANGE, _renameat2
one, other = map(fsencode, sys.argv[1:])
print("ready", flush=True)
while True:
    assert _renameat2(one, other, _EXCHANGE) == 0
"""


@contextmanager
def swapping(one: Path, other: Path) -> Generator[None]:
    """A process exchanges two names in here, as fast as it can."""
    process = subprocess.Popen([sys.executable, "-c", _SWAP, str(one), str(other)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == b"ready\n"
        yield
        assert process.poll() is None, "it swapped until the end"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def attempts(least: int, enough: Callable[[], bool]) -> Generator[int]:
    """So many numbers, and more for a minute while it is not enough: on a busy machine, who swaps may have no turn for long."""
    give_up = time.monotonic() + 60
    for number in itertools.count():
        if number >= least and (enough() or time.monotonic() > give_up):
            return
        yield number
