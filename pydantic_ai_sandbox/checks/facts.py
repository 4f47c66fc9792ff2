"""What the probe found out in a sandbox, as typed values. The sender is hostile: any of it may be a lie, none of it is unbounded."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..sandbox import Sandbox
from .results import printable

__all__ = ("Facts", "NoFactsError", "find_out", "parsed")

_PATIENCE = 120.0
"""Seconds for the whole probe, on a machine that is busy with other things."""

_LONGEST_ANSWER = 65_536
"""Characters of an answer that are looked at."""

ELSEWHERE = ("169.254.169.254", "192.0.2.1", "fd00:ec2::254", "2001:db8::1")
"""A cloud's metadata services, and addresses on the internet that nobody has."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was seen inside. Results of attempts are error numbers, 0 for success, negative for the signal that ended it."""

    uid: int
    release: str
    """The kernel's."""
    gvisor: bool
    """Whether the kernel says that it is gVisor's."""
    processors: int
    """Processors that its processes may run on."""
    status: Mapping[str, str]
    """Fields of `/proc/self/status`."""
    calls: Mapping[str, int | None]
    """System calls that the seccomp profile refuses."""
    powers: Mapping[str, int | None]
    """What only a capability allows."""
    filter: int | None
    """Installing a filter of system calls, which needs `no_new_privs`."""
    root: int | None
    """Creating a file in `/`."""
    root_read_only: bool
    """Whether the kernel says that `/` is mounted read-only."""
    uid_map: tuple[int, ...]
    """The first line of the user namespace's map."""
    interfaces: tuple[str, ...]
    routes: Mapping[str, int | None]
    """Whether there is a way to an address."""
    host_tcp: int | None
    """Connecting to a port of this process on the host's loopback."""
    host_unix: int | None
    """Connecting to an abstract socket of this process in the host's network namespace."""
    name: int | None
    """Resolving a public name; `None` if it was not tried, because there is a way to its answer."""


class NoFactsError(Exception):
    """Nothing could be found out; the message says why."""


async def find_out(sandbox: Sandbox, addresses: Sequence[str]) -> Facts:
    """Run the probe in a sandbox.

    Raises:
        NoFactsError: It does not run there, or what came back is no answer.
        SandboxError: The sandbox cannot be used.
    """
    program = Path(__file__).with_name("probe.py").read_bytes()
    with _listening() as (port, abstract):
        instructions = {"addresses": [*ELSEWHERE, *addresses], "port": port, "abstract": abstract}
        command = ["python3", "-I", "-", json.dumps(instructions)]
        done = await sandbox.execute(command, stdin=program, timeout=_PATIENCE)
    if done.exit_code in (126, 127):
        raise NoFactsError(
            "the image has no python3 to look around with; the walls of an image that has one are the same"
        )
    if done.cause != "exit" or done.exit_code != 0 or done.stdout.omitted:
        raise NoFactsError(
            f"the probe ended with {done.cause} ({done.exit_code}): {printable(done.stderr.head[-200:])}"
        )
    return parsed(done.stdout.head)


@contextmanager
def _listening() -> Generator[tuple[int, str]]:
    """Something that only this network namespace reaches: a port on its loopback and an abstract socket."""
    abstract = f"pydantic-ai-sandbox-{secrets.token_hex(8)}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(f"\0{abstract}")
        unix.listen()
        yield tcp.getsockname()[1], abstract


def parsed(answer: str) -> Facts:
    """The probe's answer.

    Raises:
        NoFactsError: It is none.
    """
    try:
        if len(answer) > _LONGEST_ANSWER:
            raise ValueError("too long")
        found: dict[str, Any] = json.loads(answer)
        return _facts(found)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise NoFactsError(f"the probe's answer is malformed ({type(error).__name__}): {printable(answer)}") from error


def _facts(found: Mapping[str, Any]) -> Facts:
    return Facts(
        uid=int(found["uid"]),
        release=printable(_text(found["release"])),
        gvisor=bool(found["gvisor"]),
        processors=int(found["processors"]),
        status={_text(name): printable(_text(value)) for name, value in found["status"].items()},
        calls=_results(found["calls"]),
        powers=_results(found["powers"]),
        filter=_result(found["filter"]),
        root=_result(found["root"]),
        root_read_only=bool(found["root_read_only"]),
        uid_map=tuple(int(number) for number in found["uid_map"]),
        interfaces=tuple(printable(_text(name)) for name in found["interfaces"]),
        routes=_results(found["routes"]),
        host_tcp=_result(found["host_tcp"]),
        host_unix=_result(found["host_unix"]),
        name=_result(found["name"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not text")
    return value


def _results(found: object) -> dict[str, int | None]:
    pairs = cast("dict[str, object]", found).items()
    return {printable(_text(name)): _result(value) for name, value in pairs}


def _result(value: object) -> int | None:
    if value is not None and not isinstance(value, int):
        raise TypeError("not a number")
    return value
