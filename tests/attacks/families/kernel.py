"""The kernel's rarer parts, in which its bugs are found."""

from __future__ import annotations

import errno

from tests.attacks.lab import Lab
from tests.attacks.registry import DEFAULT, Family

family = Family("kernel")

REFUSED = {errno.EPERM}
HIDDEN = {errno.EPERM, errno.ENOSYS}

family.probe("opens an io_uring", "call(425, 425, 8, ctypes.create_string_buffer(120))", REFUSED, quick=True)
family.probe(
    "opens a socket to the hypervisor", "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)", REFUSED, quick=True
)
family.probe("opens a socket past the network's code (AF_XDP)", "socket.socket(44, socket.SOCK_RAW)", REFUSED)


def _reaches(error: int | None) -> bool:
    """Whether a call got as far as the kernel's own code, which may not be built in on this host."""
    assert error in {None, errno.EAFNOSUPPORT, errno.EPERM}
    return error != errno.EPERM


def _family(number: int, name: str) -> None:
    body = f"socket.socket({number}, socket.SOCK_SEQPACKET)"

    async def ours(lab: Lab) -> bool:
        return _reaches((await lab.attempt(body)).error)

    family.pair(
        f"asks the kernel for {name} sockets",
        against=DEFAULT,
        naive=lambda lab: _reaches(lab.plain.attempt(body).error),
        ours=ours,
    )


for _number, _name in ((38, "AF_ALG"), (21, "AF_RDS"), (30, "AF_TIPC")):
    _family(_number, _name)

family.probe(
    "adds a key to the kernel's keyring", "call(248, 217, b'user', b'k', b'v', 1, -2)", REFUSED, unconfined=True
)
family.probe("joins a keyring", "call(250, 219, 1, None)", REFUSED, unconfined=True)
family.probe(
    "becomes root of a user namespace", "checked(libc.unshare(0x10000000))", REFUSED, unconfined=True, user="10001"
)
family.probe(
    "becomes root of a user namespace by clone3",
    "call(435, 435, ctypes.create_string_buffer(struct.pack('<Q', 0x10000000) + bytes(80)), 88) or os._exit(0)",
    HIDDEN,
    unconfined=True,
    user="10001",
)
family.probe(
    "mounts a file system in a namespace of its own",
    "checked(libc.unshare(0x10020000)); checked(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))",
    REFUSED,
    unconfined=True,
    user="10001",
)
family.probe("makes a network of its own", "checked(libc.unshare(0x50000000))", REFUSED, unconfined=True, user="10001")
family.probe("handles page faults of the kernel's copies", "call(323, 282, 1)", REFUSED, unconfined=True)
family.probe("turns address randomisation off", "call(135, 92, 0x0040000)", REFUSED, unconfined=True)
family.probe(
    "compares kernel objects of processes",
    "call(312, 272, os.getpid(), os.getpid(), 0, 0, 0)",
    REFUSED,
    unconfined=True,
)
