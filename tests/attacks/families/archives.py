"""Archives that come in and unpack where they should not, and archives that go out with more than they should."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.attacks.families.files import SECRET, our_users, users
from tests.attacks.lab import Lab
from tests.attacks.registry import Family

family = Family("archives")

EXTRACTED = "`tarfile.extractall` on the host"

Members = Callable[[tarfile.TarFile, Path], None]

# --- coming in


def _file(archive: tarfile.TarFile, name: str, data: bytes = b"planted", *, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    archive.addfile(member, io.BytesIO(data))


def _link(archive: tarfile.TarFile, name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    archive.addfile(member)


def _through_link(archive: tarfile.TarFile, place: Path) -> None:
    _link(archive, "way", str(place))
    _file(archive, "way/planted")


def _hard_link(archive: tarfile.TarFile, place: Path) -> None:
    # A member that is the host's file, and one that writes to it.
    _link(archive, "mine", str(place / "planted"), tarfile.LNKTYPE)
    _file(archive, "mine")


INCOMING: dict[str, Members] = {
    "a path that climbs out": lambda archive, _: _file(archive, "../planted"),
    "an absolute path": lambda archive, place: _file(archive, str(place / "planted")),
    "a link, and a file beneath it": _through_link,
    "a hard link to a file of the host, and the file again": _hard_link,
}


def _made(members: Members, place: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        members(archive, place)
    return buffer.getvalue()


def _planted(place: Path) -> bool:
    path = place / "planted"
    return path.exists() and path.read_bytes() == b"planted"


def _in_naive(members: Members, lab: Lab) -> bool:
    (lab.place / "planted").write_text("the host's")
    folder = lab.folder("unpacked")
    with tarfile.open(fileobj=io.BytesIO(_made(members, lab.place))) as archive:
        archive.extractall(folder, filter="fully_trusted")
    return _planted(lab.place)


async def _in_ours(members: Members, lab: Lab) -> bool:
    (lab.place / "planted").write_text("the host's")
    manager = lab.manager()
    # Where everything hostile belongs: uploaded as the file it is, and unpacked inside.
    await manager.upload("alice", "a.tar", _made(members, lab.place))
    sandbox = await manager.get_or_create("alice")
    unpack = "import tarfile; tarfile.open('a.tar').extractall('/workspace/unpacked', filter='fully_trusted')"
    await sandbox.run(["python3", "-c", unpack], timeout=20)
    return _planted(lab.place) or _planted(lab.place / "users")


for _name, _members in INCOMING.items():
    family.pair(
        f"sends {_name}",
        against=EXTRACTED,
        naive=partial(_in_naive, _members),
        ours=partial(_in_ours, _members),
        quick="climbs" in _name,
    )

BOMB = 64 << 20


def _bomb() -> bytes:
    return gzip.compress(_made(lambda archive, _: _file(archive, "big", bytes(BOMB)), Path()), 1)


def _bomb_naive(lab: Lab) -> bool:
    data = _bomb()
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(lab.place, filter="data")
    return (lab.place / "big").stat().st_size > 100 * len(data)


async def _bomb_ours(lab: Lab) -> bool:
    manager = lab.manager(disk_quota="16MiB")
    await manager.upload("alice", "a.tgz", _bomb())
    sandbox = await manager.get_or_create("alice")
    unpacked = await sandbox.execute(
        ["python3", "-c", "import tarfile; tarfile.open('a.tgz').extractall()"], timeout=20
    )
    assert (await sandbox.run(["echo", "alive"])).stdout == "alive\n"
    return unpacked.exit_code == 0 or (await manager.usage("alice")).used > 20 << 20


family.pair("sends a few kilobytes that become many megabytes", against=EXTRACTED, naive=_bomb_naive, ours=_bomb_ours)

# --- going out


async def _archived(lab: Lab, plant: Callable[[Path], object]) -> tarfile.TarFile:
    manager, alice = await our_users(lab)
    plant(alice)
    data = b"".join([piece async for piece in await manager.archive("alice", format="tar")])
    return tarfile.open(fileobj=io.BytesIO(data))


def _plain_archive(lab: Lab, plant: Callable[[Path], object], dereference: bool = False) -> tarfile.TarFile:
    alice, _ = users(lab)
    plant(alice)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=dereference) as archive:
        archive.add(alice, ".")
    return tarfile.open(fileobj=io.BytesIO(buffer.getvalue()))


def _followed_naive(lab: Lab) -> bool:
    archive = _plain_archive(lab, lambda alice: (alice / "way").symlink_to("../bob/secret"), dereference=True)
    file = archive.extractfile("./way")
    return file is not None and file.read() == SECRET


async def _followed_ours(lab: Lab) -> bool:
    archive = await _archived(lab, lambda alice: (alice / "way").symlink_to("../bob/secret"))
    return "way" in archive.getnames()


family.pair(
    "has another user's file archived by a link to it",
    against="`tarfile.open(dereference=True)`",
    naive=_followed_naive,
    ours=_followed_ours,
)


def _outward(alice: Path) -> None:
    (alice / "out").symlink_to("/etc")
    (alice / "up").symlink_to("../..")


def _laid_naive(lab: Lab) -> bool:
    return any(member.issym() and member.linkname == "/etc" for member in _plain_archive(lab, _outward))


async def _laid_ours(lab: Lab) -> bool:
    return any(member.issym() for member in await _archived(lab, _outward))


family.pair("lays links for whoever unpacks the archive", against="`tarfile.add`", naive=_laid_naive, ours=_laid_ours)


def _devices(alice: Path) -> None:
    os.mknod(alice / "disk", 0o60666, os.makedev(240, 200))
    (alice / "program").touch()
    (alice / "program").chmod(0o6755)
    os.chown(alice / "program", 0, 0)
    (alice / "program").chmod(0o6755)


def _carries(archive: tarfile.TarFile) -> bool:
    return any(member.isdev() or member.mode & 0o6000 for member in archive)


async def _devices_ours(lab: Lab) -> bool:
    return _carries(await _archived(lab, _devices))


family.pair(
    "has devices and setuid programs carried out",
    against="`tarfile.add`",
    naive=lambda lab: _carries(_plain_archive(lab, _devices)),
    ours=_devices_ours,
)


def _copied_naive(lab: Lab) -> bool:
    alice, _ = users(lab)
    (alice / "way").symlink_to("../bob/secret")
    return (
        lab.host(["cp", "-rL", str(alice), str(lab.place / "copy")]) == ""
        and (lab.place / "copy/way").read_bytes() == SECRET
    )


async def _copied_ours(lab: Lab) -> bool:
    (lab.place / "secret").write_bytes(SECRET)
    sandbox = await lab.another_sandbox()
    await sandbox.run(f"mkdir d; ln -s {lab.place}/secret d/way; ln -s /etc/passwd d/own; touch d/f", shell=True)
    copied = await sandbox.copy_from("/workspace/d", lab.folder("out"))
    return [path.name for path in copied] != ["f"]


family.pair("has a copy follow its links", against="`cp -rL`", naive=_copied_naive, ours=_copied_ours)
