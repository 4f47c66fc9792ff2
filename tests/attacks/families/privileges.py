"""Capabilities, devices, setuid programs, and the engine itself."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import struct
from pathlib import Path

import pytest

from pydantic_ai_sandbox import RuntimeNotFoundError
from tests.attacks.lab import Lab
from tests.attacks.registry import DEFAULT, Family

family = Family("privileges")

READ_ONLY = {errno.EROFS, errno.EACCES}
REFUSED = {errno.EPERM}

family.probe("adds a user to the system", "open('/etc/passwd', 'a').write('x')", READ_ONLY, quick=True)
family.probe("replaces a program", "open('/usr/local/bin/python3.99', 'w').write('x')", READ_ONLY)
family.probe("becomes another user", "os.setuid(12345)", REFUSED, quick=True)
family.probe("joins the group of the disks", "os.setgroups([6])", REFUSED)
family.probe("gives files to somebody else", "open('/tmp/f', 'w').close(); os.chown('/tmp/f', 12345, 12345)", REFUSED)
family.probe("changes its root directory", "os.chroot('/tmp')", REFUSED)
family.probe("forges packets", "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)", REFUSED)
family.probe("listens to the network's frames", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", REFUSED, quick=True)

# --- things in mounted directories


def _disk_naive(lab: Lab) -> bool:
    folder = lab.folder("disk")
    plain = lab.another_plain(volumes=[f"{folder}:/mnt"])
    plain.attempt("os.mknod('/mnt/disk', 0o60666, os.makedev(254, 0))")
    return stat.S_ISBLK((folder / "disk").stat().st_mode)


async def _disk_ours(lab: Lab) -> bool:
    sandbox = await lab.another_sandbox(workspace=lab.folder("disk-ours"))
    tried = await lab.attempt("os.mknod('/workspace/disk', 0o60666, os.makedev(254, 0))", sandbox=sandbox)
    assert tried.error in {errno.EPERM, None}
    return tried.error is None


family.pair(
    "makes a node for the host's disk in a mounted directory",
    against=f"{DEFAULT} with `-v`",
    naive=_disk_naive,
    ours=_disk_ours,
)


def _programs(folder: Path) -> None:
    """Programs that a careless or bribed administrator left in a user's directory."""
    shutil.copy("/usr/bin/id", folder / "suid")
    (folder / "suid").chmod(0o4755)
    shutil.copy("/bin/cat", folder / "able")
    (folder / "able").chmod(0o755)
    # Version 2, effective, CAP_NET_RAW permitted.
    os.setxattr(folder / "able", "security.capability", struct.pack("<5I", 0x0200_0001, 1 << 13, 0, 0, 0))


def _suid_naive(lab: Lab) -> bool:
    folder = lab.folder("suid")
    _programs(folder)
    return lab.another_plain(volumes=[f"{folder}:/mnt"]).sh("/mnt/suid -u", user="10001").strip() == "0"


async def _suid_ours(lab: Lab) -> bool:
    folder = lab.folder("suid-ours")
    _programs(folder)
    sandbox = await lab.another_sandbox(workspace=folder)
    uid = (await sandbox.run(["./suid", "-u"])).stdout.strip()
    assert uid in ("0", "10001")
    return uid == "0"


family.pair("runs a setuid program", against="`docker run --user -v`", naive=_suid_naive, ours=_suid_ours, quick=True)

_CAPABILITIES = "/able /proc/self/status | sed -n 's/^CapEff:[[:space:]]*//p'"


def _able_naive(lab: Lab) -> bool:
    folder = lab.folder("able")
    _programs(folder)
    return int(lab.another_plain(volumes=[f"{folder}:/mnt"]).sh(f"/mnt{_CAPABILITIES}", user="10001"), 16) != 0


async def _able_ours(lab: Lab) -> bool:
    folder = lab.folder("able-ours")
    _programs(folder)
    sandbox = await lab.another_sandbox(workspace=folder)
    result = await sandbox.run(f".{_CAPABILITIES}", shell=True)
    # It is refused altogether when it would need what nobody in there can have.
    return bool(result.stdout.strip()) and int(result.stdout, 16) != 0


family.pair(
    "runs a program with file capabilities", against="`docker run --user -v`", naive=_able_naive, ours=_able_ours
)


def _secret(folder: Path) -> None:
    (folder / "secret").write_text("secret")
    (folder / "secret").chmod(0o600)
    os.chown(folder / "secret", 12345, 12345)


def _override_naive(lab: Lab) -> bool:
    folder = lab.folder("mixed")
    _secret(folder)
    return lab.another_plain(volumes=[f"{folder}:/mnt"]).sh("cat /mnt/secret") == "secret"


async def _override_ours(lab: Lab) -> bool:
    folder = lab.folder("mixed-ours")
    _secret(folder)
    sandbox = await lab.another_sandbox(workspace=folder)
    with pytest.raises(PermissionError):
        await sandbox.read_bytes("/workspace/secret")
    return (await sandbox.run(["cat", "secret"])).exit_code == 0


family.pair(
    "reads a file that only somebody else may read",
    against=f"{DEFAULT} with `-v`",
    naive=_override_naive,
    ours=_override_ours,
)

# --- volumes that are the host

_ASK = (
    "s = socket.socket(socket.AF_UNIX); s.settimeout(5); s.connect('/engine.sock')\n"
    "s.sendall(b'GET /_ping HTTP/1.0\\r\\n\\r\\n'); assert b'200 OK' in s.recv(1000)"
)


def _engine_naive(lab: Lab) -> bool:
    plain = lab.another_plain(volumes=["/var/run/docker.sock:/engine.sock"])
    return plain.attempt(_ASK).error is None


async def _engine_ours(lab: Lab) -> bool:
    # By its name, and by a link that a tenant may have laid.
    (lab.place / "link").symlink_to("/var/run/docker.sock")
    for source in ("/var/run/docker.sock", "/run/docker.sock", str(lab.place / "link")):
        with pytest.raises(ValueError, match="cannot be mounted"):
            await lab.another_sandbox(volumes={source: "/engine.sock"})
    return False


family.pair(
    "asks for the engine's socket as a volume", against="`docker run -v`", naive=_engine_naive, ours=_engine_ours
)


def _host_naive(lab: Lab) -> bool:
    (lab.place / "of-the-host").write_text("host")
    return lab.another_plain(volumes=["/:/host"]).sh(f"cat /host{lab.place}/of-the-host") == "host"


async def _host_ours(lab: Lab) -> bool:
    (lab.place / "root").symlink_to("/")
    for source in (
        "/",
        "/etc",
        "/proc",
        "/var/lib/docker/volumes",
        str(lab.place / "root"),
        str(lab.place / "root/etc"),
    ):
        for options in ({"volumes": {source: "/mnt"}}, {"workspace": source}):
            with pytest.raises(ValueError, match="would hand the host"):
                await lab.another_sandbox(**options)
    return False


family.pair(
    "asks for the host's root as a volume or workspace", against="`docker run -v`", naive=_host_naive, ours=_host_ours
)


def _option_naive(lab: Lab) -> bool:
    # The image's name comes from a request, and is a further option.
    (lab.place / "of-the-host").write_text("host")
    command = ["docker", "run", "--rm", "--volume=/:/host", lab.plains.image, "cat", f"/host{lab.place}/of-the-host"]
    return lab.host(command) == "host"


async def _option_ours(lab: Lab) -> bool:
    for image in ("--volume=/:/host", "--privileged", "-v/:/host"):
        with pytest.raises(RuntimeNotFoundError, match="not a name for an image"):
            await lab.another_sandbox(image=image)
    return False


family.pair(
    "names an image that is an option", against='`["docker", "run", image, …]`', naive=_option_naive, ours=_option_ours
)
