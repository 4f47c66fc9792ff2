"""Python code that tries something inside a container, and says in one line how that ended."""

from __future__ import annotations

import json
from dataclasses import dataclass

__all__ = ("Tried", "program", "read")

_PROGRAM = '''
import ctypes, errno, json, os, platform, resource, signal, socket, struct, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
INTEL = platform.machine() == "x86_64"

def checked(value):
    if value == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return value

def call(intel, arm, *arguments):
    """A system call by its number on each architecture."""
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return checked(libc.syscall(ctypes.c_long(intel if INTEL else arm), *words))

def attempt():
{body}

try:
    said = attempt()
    print(json.dumps({{"error": None, "said": said}}))
except OSError as error:
    # A socket's own timeout has no number.
    print(json.dumps({{"error": error.errno or errno.ETIMEDOUT, "said": str(error)}}))
'''


@dataclass(frozen=True)
class Tried:
    """How an attempt ended."""

    error: int | None
    """Number of the error it failed by; `None`: it succeeded."""
    said: object


def program(body: str) -> str:
    """A program for `python3 -c` that tries `body`."""
    return _PROGRAM.format(body="\n".join(f"    {line}" for line in body.splitlines()))


def read(output: str) -> Tried:
    """What a program said at last.

    Raises:
        AssertionError: It said nothing of how it ended, which is neither success nor failure.
    """
    try:
        found = json.loads(output.strip().splitlines()[-1])
        return Tried(found["error"], found["said"])
    except (IndexError, KeyError, TypeError, ValueError):
        raise AssertionError(f"the attempt broke: {output[-1500:]}") from None
