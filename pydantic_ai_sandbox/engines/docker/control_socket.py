"""The shortest way to a runner: its unix socket, reached through the container's root directory under `/proc`.

It works when the daemon is local and we may look into the container's mount namespace (as root); anything else raises
`NotReachableError` and the caller takes `docker exec`. Nothing is mounted from the host, so nothing is left on it.

Everything below the container's root belongs to the tenant. The path is therefore walked component by component
without following links, what is at its end must be a socket, and the process that listens on it must be the container's PID 1: a
socket that the tenant put there instead is refused.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import struct
import time
from collections.abc import Generator
from contextlib import contextmanager

__all__ = ("NotReachableError", "NotYetError", "connect_control_socket")

_POLL = 0.001
"""Seconds between looks for a socket that the runner is about to make; it takes a few milliseconds."""

_FIRST_IN_NAMESPACE = re.compile(r"^NSpid:.*\s1$", re.MULTILINE)

_PEER_CREDENTIALS = struct.Struct("3i")


class NotReachableError(Exception):
    """The socket cannot be reached from here."""


class NotYetError(Exception):
    """The runner is not listening (yet)."""


def connect_control_socket(container_id: str, pid: int, directory: str, *, timeout: float) -> socket.socket:
    """Connect to `socket` in `directory` of the container whose first process is `pid`.

    Raises:
        NotReachableError: It cannot be reached from here, or what is there is not the runner's.
        NotYetError: Nobody listened within `timeout` seconds.
    """
    with _process(container_id, pid) as process:
        give_up = time.monotonic() + timeout
        while True:
            try:
                return _connect(process, pid, directory)
            except NotYetError:
                if time.monotonic() > give_up or not _alive(process):
                    raise
            time.sleep(_POLL)


@contextmanager
def _process(container_id: str, pid: int) -> Generator[int]:
    """The process's directory, held open, so that another process that gets the number later is not mistaken for it."""
    if pid <= 0:
        raise NotReachableError("the container has no process")
    try:
        process = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise NotReachableError(f"process {pid} is not to be seen from here") from error
    try:
        # A daemon on another machine has a process of that number too, but not in a cgroup of this name.
        if container_id not in _read(process, "cgroup"):
            raise NotReachableError(f"process {pid} is not the container's: the daemon runs elsewhere")
        # One that has the number of an earlier run's first process may be the tenant's.
        if not _FIRST_IN_NAMESPACE.search(_read(process, "status")):
            raise NotReachableError(f"process {pid} is not the container's first")
        yield process
    finally:
        os.close(process)


def _read(directory: int, name: str) -> str:
    try:
        with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=directory), encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError as error:
        raise NotReachableError(f"cannot read the container's {name}") from error


def _alive(process: int) -> bool:
    try:
        return _read(process, "stat") != ""
    except NotReachableError:
        return False


def _connect(process: int, pid: int, directory: str) -> socket.socket:
    with _walk(process, directory) as folder:
        try:
            entry = os.open("socket", os.O_PATH | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError as error:
            raise NotYetError("the runner has not made its socket") from error
        except OSError as error:
            raise NotReachableError(f"cannot open the runner's socket: {error}") from error
    try:
        if not stat.S_ISSOCK(os.fstat(entry).st_mode):
            raise NotReachableError("what lies in place of the runner's socket is not one")
        return _dial(entry, pid)
    finally:
        os.close(entry)


@contextmanager
def _walk(process: int, directory: str) -> Generator[int]:
    # "root" is the kernel's own link to the container's root; no other link is followed.
    current = _open_directory(process, "root", 0)
    try:
        for name in directory.strip("/").split("/"):
            child = _open_directory(current, name, os.O_NOFOLLOW)
            os.close(current)
            current = child
        yield current
    finally:
        os.close(current)


def _open_directory(parent: int, name: str, flags: int) -> int:
    try:
        return os.open(name, os.O_PATH | os.O_DIRECTORY | flags, dir_fd=parent)
    except OSError as error:
        raise NotReachableError(f"cannot look into the container: {error}") from error


def _dial(entry: int, pid: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Through the descriptor, so that what was checked is what is connected to, whatever the path says by now.
        sock.connect(f"/proc/self/fd/{entry}")
        listener, _, _ = _PEER_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if listener != pid:
            raise NotReachableError("somebody else listens on the runner's socket")
    except ConnectionRefusedError as error:
        sock.close()
        raise NotYetError("the runner does not listen yet") from error
    except OSError as error:
        sock.close()
        raise NotReachableError(f"cannot connect to the runner's socket: {error}") from error
    except BaseException:
        sock.close()
        raise
    return sock
