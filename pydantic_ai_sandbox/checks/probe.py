"""What is tried inside a sandbox. This file is sent to the sandbox's own Python; nothing on the host runs it.

It needs nothing but the standard library of Python 3.8 or newer, takes its instructions as JSON in its first argument, and
prints one JSON object. Each attempt is made in a process of its own: where a wall is missing, the attempt succeeds, and what
it changed ends with that process. Nothing here sends a packet: whether there is a way to an address is asked of the
kernel by connecting a datagram socket, which looks up the route and no more.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import socket
import stat
import struct
import sys
import tempfile
from collections.abc import Callable

EXPECTED_ERRORS = 200
"""An attempt's exit status is its error number; what is above this is no error number that Linux has."""

BROKEN = 250
"""Exit status of an attempt that failed in a way that says nothing."""

PATIENCE = 10
"""Seconds for one attempt."""

CLONE_NEWUSER = 0x10000000
PTRACE_SEIZE = 0x4206
UFFD_USER_MODE_ONLY = 1
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
SYSLOG_READ_ALL = 3

# The numbers of x86_64 and of everything younger, which uses the generic table.
NUMBERS = {
    "io_uring_setup": (425, 425),
    "clone": (56, 220),
    "clone3": (435, 435),
    "unshare": (272, 97),
    "setns": (308, 268),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "userfaultfd": (323, 282),
    "perf_event_open": (298, 241),
    "mount": (165, 40),
    "name_to_handle_at": (303, 264),
    "ptrace": (101, 117),
}

# The kernel would answer each of these with something other than "not permitted" if it got to see it: they point nowhere, or
# ask for what any user may have.
CALLS = {
    "io_uring_setup": (8, 0),
    "clone3": (0, 0),
    "unshare": (CLONE_NEWUSER,),
    "setns": (-1, 0),
    "keyctl": (0, -3, 0),
    "add_key": (0, 0, 0, 0, 0),
    "bpf": (0, 0, 0),
    "userfaultfd": (UFFD_USER_MODE_ONLY,),
    "perf_event_open": (0, 0, -1, -1, 0),
    "mount": (0, 0, 0, 0, 0),
    "name_to_handle_at": (-100, 0, 0, 0, 0),
    "ptrace": (PTRACE_SEIZE, 1, 0, 0),
}

libc = ctypes.CDLL(None, use_errno=True)


def attempt(action: Callable[[], int]) -> int | None:
    """The error number that an action ends with, 0 if it works, minus a signal's number; `None` if that says nothing."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(PATIENCE)
        code = BROKEN
        try:
            code = action()
        except OSError as error:
            code = error.errno or BROKEN
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return None if os.WTERMSIG(status) == signal.SIGALRM else -os.WTERMSIG(status)
    code = os.WEXITSTATUS(status)
    return None if code > EXPECTED_ERRORS else code


def call(name: str, *arguments: int) -> int:
    number = NUMBERS[name][0 if platform.machine() == "x86_64" else 1]
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments))
    return 0 if result >= 0 else ctypes.get_errno()


def clone_new_user() -> int:
    """A child in a user namespace of its own; it ends at once."""
    number = NUMBERS["clone"][0 if platform.machine() == "x86_64" else 1]
    result = libc.syscall(ctypes.c_long(number), ctypes.c_long(CLONE_NEWUSER | signal.SIGCHLD), 0, 0, 0, 0)
    if result == 0:
        os._exit(0)
    return 0 if result > 0 else ctypes.get_errno()


def open_socket(family: int, kind: int, protocol: int = 0) -> int:
    socket.socket(family, kind, protocol).close()
    return 0


def filter_system_calls() -> int:
    """Install a filter that allows everything: the kernel lets a process without privileges do that only if it can gain none."""
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 1, ctypes.addressof(instruction)))
    result = libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0)
    return 0 if result == 0 else ctypes.get_errno()


def in_scratch(action: Callable[[str], object]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        action(os.path.join(folder, "probe"))
    return 0


def give_away(path: str) -> None:
    with open(path, "w", encoding="utf-8"):
        pass
    os.chown(path, 65534, 65534)


def make_device(path: str) -> None:
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))


def become(uid: int) -> int:
    os.setuid(uid)
    return 0


def write_into_root() -> int:
    os.close(os.open("/probe-of-the-root", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    os.unlink("/probe-of-the-root")
    return 0


def route(address: str) -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((address, 53))
    return 0


def reach(family: int, address: object) -> int:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE / 2)
        sock.connect(address)  # type: ignore[arg-type]
    return 0


def resolve(name: str) -> int:
    try:
        socket.getaddrinfo(name, 443)
    except socket.gaierror:
        return 2
    return 0


def is_gvisor() -> bool:
    buffer = ctypes.create_string_buffer(4096)
    length = libc.klogctl(SYSLOG_READ_ALL, buffer, len(buffer))
    return length > 0 and b"gVisor" in buffer.raw[:length]


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(65_536)
    except OSError:
        return ""


def status() -> dict[str, str]:
    lines = (line.split(":", 1) for line in read("/proc/self/status").splitlines() if ":" in line)
    wanted = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")
    return {name: value.strip() for name, value in lines if name in wanted}


def interfaces() -> list[str]:
    try:
        return [name for _, name in socket.if_nameindex()]
    except OSError:
        return []


def main(instructions: dict[str, object]) -> dict[str, object]:
    """Everything that can be found out without disturbing anybody."""
    addresses: list[str] = instructions["addresses"]  # type: ignore[assignment]
    calls = {name: attempt(lambda name=name: call(name, *CALLS[name])) for name in CALLS}
    calls["clone"] = attempt(clone_new_user)
    calls["AF_ALG"] = attempt(lambda: open_socket(38, socket.SOCK_SEQPACKET))
    calls["AF_VSOCK"] = attempt(lambda: open_socket(40, socket.SOCK_STREAM))
    routes = {address: attempt(lambda address=address: route(address)) for address in addresses}
    closed = 0 not in routes.values()
    return {
        "uid": os.getuid(),
        "release": platform.release(),
        "gvisor": is_gvisor(),
        "processors": len(os.sched_getaffinity(0)),
        "status": status(),
        "calls": calls,
        "powers": {
            "chown": attempt(lambda: in_scratch(give_away)),
            "mknod": attempt(lambda: in_scratch(make_device)),
            "raw socket": attempt(lambda: open_socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)),
            "setuid": attempt(lambda: become(0 if os.getuid() else 65534)),
        },
        "filter": attempt(filter_system_calls),
        "root": attempt(write_into_root),
        "root_read_only": bool(os.statvfs("/").f_flag & os.ST_RDONLY),
        "uid_map": read("/proc/self/uid_map").split()[:3],
        "interfaces": interfaces(),
        "routes": routes,
        "host_tcp": attempt(lambda: reach(socket.AF_INET, ("127.0.0.1", instructions["port"]))),
        "host_unix": attempt(lambda: reach(socket.AF_UNIX, "\0" + str(instructions["abstract"]))),
        # Where there is a way out, a question would take it.
        "name": attempt(lambda: resolve("example.com")) if closed else None,
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
