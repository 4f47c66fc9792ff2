"""An archive is what is in the tree, well-formed, in bounded memory, and leads nowhere else."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Literal

import pytest

from pydantic_ai_sandbox.trees import archive, archiving, remove_tree
from tests.descriptors import open_below
from tests.trees.making import attempts, described, make_deep, make_odd, make_special, swapping


@pytest.fixture
def root(place: Path) -> Path:
    (place / "root").mkdir()
    return place / "root"


def members(root: Path, path: str = "") -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(archive(root, path)))) as tar:
        return {member.name: member for member in tar}


class TestArchive:
    @pytest.mark.parametrize("format", ["tar", "tar.gz"])
    def test_unpacked_it_is_the_same(self, root: Path, place: Path, format: Literal["tar", "tar.gz"]) -> None:
        make_odd(root)
        (root / "a/b").mkdir(parents=True)
        (root / "a/b").chmod(0o750)
        (root / "empty").touch()
        (root / "a/f").write_bytes(os.urandom(1_000_000))
        (root / "a/program").write_text("#!/bin/sh\n")
        (root / "a/program").chmod(0o755)
        os.link(root / "a/f", root / "again")
        for name, target in (("a/down", "b"), ("a/up", "../empty"), ("a/dangling", "missing"), ("a/b/dot", ".")):
            (root / name).symlink_to(target)
        os.utime(root / "empty", (1, 1_000_000_000))
        with tarfile.open(fileobj=io.BytesIO(b"".join(archive(root, format=format)))) as tar:
            tar.extractall(place / "unpacked", filter="tar")
        assert described(place / "unpacked") == described(root)
        assert (place / "unpacked/empty").stat().st_mtime == 1_000_000_000

    def test_another_program_unpacks_it(self, root: Path, place: Path) -> None:
        make_odd(root)
        (root / "a").mkdir()
        (root / "a" / ("y" * 200)).write_text("long")
        (place / "unpacked").mkdir()
        subprocess.run(["tar", "-xz", "-C", place / "unpacked"], input=b"".join(archive(root)), check=True)
        # It was told about names that are no text in a way it does not know.
        assert {*described(root)} - {*described(place / "unpacked")} <= {"\udcff\udcfe", "\udcff\udcfe/\udcff\udcfe"}

    def test_only_what_is_below_the_path_is_in_it(self, root: Path) -> None:
        (root / "a/b").mkdir(parents=True)
        (root / "a/b/f").write_text("x")
        (root / "f").write_text("y")
        (root / "link").symlink_to("/workspace/a")
        for path in ("a", "/workspace/a", "link", "a/b/.."):
            assert sorted(members(root, path)) == ["b", "b/f"]
        for path in ("..", "/etc"):
            with pytest.raises(PermissionError):
                next(archive(root, path))
        for path, error in (("missing", FileNotFoundError), ("f", NotADirectoryError)):
            with pytest.raises(error):
                next(archive(root, path))

    @pytest.mark.parametrize(
        ("link", "target", "expected"),
        [
            ("l", "f", "f"),
            ("l", "d/e/../f", None),
            ("l", "..", None),
            ("l", "../root/f", None),
            ("l", "/etc/passwd", None),
            ("l", "/", None),
            ("l", "/workspace", "."),
            ("l", "/workspace/d/f", "d/f"),
            ("l", "/workspace/../etc", None),
            ("l", "/workspacefoo", None),
            ("d/e/l", "../../f", "../../f"),
            ("d/e/l", "../..", "../.."),
            ("d/e/l", "../../..", None),
            ("d/e/l", ".././../f", ".././../f"),
            ("d/e/l", "/workspace/f", "../../f"),
            ("d/e/l", "/workspace/d/../..", None),
        ],
    )
    def test_links_are_kept_only_if_they_stay_inside(
        self, root: Path, link: str, target: str, expected: str | None
    ) -> None:
        (root / "d/e").mkdir(parents=True)
        (root / link).symlink_to(target)
        member = members(root).get(link)
        assert (member and member.linkname) == expected

    def test_absolute_links_are_made_relative_to_what_is_archived(self, root: Path) -> None:
        (root / "a/b").mkdir(parents=True)
        (root / "a/b/l").symlink_to("/workspace/a/f")
        (root / "a/b/out").symlink_to("/workspace/f")
        found = members(root, "a")
        assert found["b/l"].linkname == "../f"
        assert "b/out" not in found

    def test_a_link_through_a_link_does_not_lead_out(self, root: Path, place: Path) -> None:
        # By its text the second stays inside; through the first it does not.
        (root / "c").mkdir()
        (root / "c/d").symlink_to("..")
        (root / "l").symlink_to("c/d/../secret")
        assert sorted(members(root)) == ["c", "c/d"]

    def test_pipes_sockets_and_devices_are_left_out(self, root: Path) -> None:
        make_special(root)
        (root / "f").touch()
        assert sorted(members(root)) == ["f"]

    def test_a_file_that_a_process_holds_a_lease_on_is_left_out(self, root: Path) -> None:
        held = os.open(root / "f", os.O_RDWR | os.O_CREAT)
        fcntl.fcntl(held, fcntl.F_SETSIG, 23)  # SIGURG is ignored
        fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        assert members(root) == {}
        os.close(held)

    def test_it_does_not_tell_who_owns_what_nor_make_anything_run_as_somebody_else(self, root: Path) -> None:
        (root / "f").touch()
        (root / "f").chmod(0o6755)
        found = members(root)["f"]
        assert (found.uid, found.gid, found.uname, found.gname, found.mode) == (0, 0, "", "", 0o755)

    @pytest.mark.parametrize("mtime", [-5, 0, 1 << 33, (1 << 34) - 1])
    def test_odd_times_are_told(self, root: Path, mtime: int) -> None:
        (root / "f").touch()
        os.utime(root / "f", (mtime, mtime))
        assert members(root)["f"].mtime == (root / "f").stat().st_mtime

    def test_a_deep_tree_is_archived(self, root: Path) -> None:
        make_deep(root, 5000)
        names = list(members(root))
        assert len(names) == 5001
        assert names[-1] == "deep/" * 5000 + "leaf"

    def test_a_name_without_end_is_an_error(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archiving, "_LONGEST", 100)
        make_deep(root, 30)
        with pytest.raises(OSError, match="name too long") as caught:
            list(archive(root))
        assert caught.value.errno == errno.ENAMETOOLONG

    def test_chunks_are_as_large_as_asked_for(self, root: Path) -> None:
        (root / "f").write_bytes(os.urandom(1_000_000))
        chunks = list(archive(root, chunk_size=100_000))
        assert all(100_000 <= len(chunk) < 500_000 for chunk in chunks[:-1])
        assert len(chunks) > 2

    def test_an_archive_of_nothing_is_one(self, root: Path) -> None:
        for format in ("tar", "tar.gz"):
            with tarfile.open(fileobj=io.BytesIO(b"".join(archive(root, format=format)))) as tar:
                assert tar.getmembers() == []


class TestLimit:
    def test_what_is_larger_is_an_error_before_it_is_read(self, root: Path) -> None:
        with open(root / "sparse", "wb") as file:
            file.truncate(1 << 40)
        with pytest.raises(OSError, match="more than 1000000 bytes") as caught:
            list(archive(root, max_bytes=1_000_000))
        assert caught.value.errno == errno.EFBIG

    def test_the_limit_is_that_of_the_uncompressed_archive(self, root: Path) -> None:
        (root / "f").write_bytes(bytes(100_000))
        size = sum(map(len, archive(root, format="tar")))
        for format in ("tar", "tar.gz"):
            assert list(archive(root, format=format, max_bytes=size))
            with pytest.raises(OSError, match="more than"):
                list(archive(root, format=format, max_bytes=size - 1))

    def test_many_small_entries_count_too(self, root: Path) -> None:
        for number in range(100):
            (root / str(number)).mkdir()
        with pytest.raises(OSError, match="more than"):
            list(archive(root, max_bytes=50 * 512))


class TestChanges:
    @pytest.mark.parametrize("size", [0, 1, 500_000, 2_000_000])
    def test_a_file_that_changes_its_size_keeps_the_archive_well_formed(self, root: Path, size: int) -> None:
        (root / "f").write_bytes(b"x" * 1_000_000)
        chunks = archive(root, format="tar", chunk_size=512)
        first = next(chunks)
        os.truncate(root / "f", size)
        with tarfile.open(fileobj=io.BytesIO(first + b"".join(chunks))) as tar:
            (member,) = tar.getmembers()
            file = tar.extractfile(member)
            assert file is not None
            content = file.read()
        assert len(content) == 1_000_000
        # One piece may have been read before.
        assert content.rstrip(b"\0") in (b"x" * size, b"x" * 262_144, b"x" * 1_000_000)

    def test_an_archive_that_is_not_read_to_its_end_holds_nothing_open(self, root: Path) -> None:
        (root / "a/b").mkdir(parents=True)
        (root / "a/b/f").write_bytes(os.urandom(1_000_000))
        chunks = archive(root, chunk_size=1)
        assert not open_below(root)
        next(chunks)
        next(chunks)
        assert open_below(root)
        chunks.close()
        assert not open_below(root)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_while_a_directory_is_swapped_with_a_link_nothing_outside_is_archived(place: Path) -> None:
    root = place / "root"
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/f").write_text("inside")
    (place / "secret/b").mkdir(parents=True)
    (place / "secret/f").write_text("SECRET")
    (place / "secret/b/f").write_text("SECRET")
    (root / "swapped").symlink_to("../secret")
    (root / "f").write_text("inside")
    (root / "link").symlink_to("../secret/f")
    seen: set[str] = set()
    with swapping(root / "a", root / "swapped"), swapping(root / "f", root / "link"):
        for _ in attempts(1000, lambda: len(seen) > 1):
            data = b"".join(archive(root, format="tar"))
            assert b"SECRET" not in data
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                found = tar.getmembers()
            seen.add(" ".join(sorted(member.name for member in found)))
            assert not any(member.issym() for member in found)
    assert len(seen) > 1


@pytest.fixture(scope="module")
def many_files() -> Generator[Path]:
    """A directory with many files, and one with a few beside it; in memory where that can be, to spare the disk."""
    memory = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    for name, count in (("wide", 200_000), ("small", 100)):
        (root / name).mkdir()
        folder = os.open(root / name, os.O_RDONLY)
        for number in range(count):
            os.close(os.open(f"f{number}", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
        os.close(folder)
    yield root
    remove_tree(root.parent, root.name)


MANY = """
import os, sys
from pathlib import Path
from pydantic_ai_sandbox.trees import archive, measure
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
root, kind = Path(sys.argv[1]), sys.argv[2]
small = root / "small"
work = {
    "archive": lambda path: sum(map(len, archive(path, format="tar"))),
    "measure": lambda path: measure(path).files,
}[kind]
work(small)
before = peak()
result = work(root)
print(result, peak() - before)
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["archive", "measure"])
def test_two_hundred_thousand_files_take_no_more_memory_than_a_few(many_files: Path, kind: str) -> None:
    answer = subprocess.check_output([sys.executable, "-c", MANY, str(many_files), kind], text=True)
    result, grown = map(int, answer.split())
    assert result >= (200_000 * 512 if kind == "archive" else 200_000)
    assert grown < 8_000, f"{grown} KiB"
