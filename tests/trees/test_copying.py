"""A copy is the same as what was copied, and whole or not there."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import stat
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from pydantic_ai_sandbox.trees import TreeCopy, copy_tree, copying, measure
from pydantic_ai_sandbox.trees.walking import Step, walk
from tests.trees.making import attempts, described, make_deep, make_odd, make_special, swapping

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def source(place: Path) -> Path:
    (place / "source").mkdir()
    return place / "source"


@pytest.fixture(params=["as it can", "by copy_file_range", "by reading and writing"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run with the best way that the file system has, and with those it falls back to."""
    if request.param != "as it can":
        # What a file system says that has no such thing.
        monkeypatch.setattr(copying, "_FICLONE", 0)
    if request.param == "by reading and writing":
        monkeypatch.delattr(os, "copy_file_range")


@pytest.mark.usefixtures("way")
class TestContents:
    def test_contents_are_the_same(self, source: Path, place: Path) -> None:
        (source / "empty").touch()
        (source / "small").write_bytes(b"x")
        (source / "large").write_bytes(os.urandom(40_000_000))
        copy = copy_tree(source, place / "target")
        assert described(place / "target") == described(source)
        assert copy == TreeCopy(files=3, bytes=40_000_001, skipped=0)

    def test_holes_stay_holes(self, source: Path, place: Path) -> None:
        with open(source / "sparse", "wb") as file:
            for position in (1 << 20, 1 << 30, 1 << 39):
                file.seek(position)
                file.write(b"data")
            file.truncate(1 << 40)
        with open(source / "only a hole", "wb") as file:
            file.truncate(1 << 40)
        copy = copy_tree(source, place / "target")
        assert copy.bytes < 1 << 20
        assert measure(place / "target").bytes <= measure(source).bytes
        with open(place / "target/sparse", "rb") as file:
            for position in (1 << 20, 1 << 30, 1 << 39):
                file.seek(position - 2)
                assert file.read(8) == b"\0\0data\0\0"
        for name in ("sparse", "only a hole"):
            assert (place / "target" / name).stat().st_size == 1 << 40


class TestCloning:
    def test_a_file_system_that_shares_blocks_is_asked_to(
        self, source: Path, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def clone(target: int, request: int, file: int) -> int:
            assert request == 0x40049409, "_IOW(0x94, 9, int) in linux/fs.h"
            os.pwrite(target, os.pread(file, 1 << 20, 0), 0)
            return 0

        monkeypatch.setattr(fcntl, "ioctl", clone)
        # Nothing else copies here.
        monkeypatch.setattr(copying, "_data", None)
        (source / "f").write_bytes(b"x" * 10_000)
        (source / "f").chmod(0o600)
        assert copy_tree(source, place / "target").bytes == 10_000
        assert described(place / "target") == described(source)


class TestCopyTree:
    def test_links_names_permissions_and_times_are_the_same(self, source: Path, place: Path) -> None:
        make_odd(source)
        (source / "closed").mkdir()
        (source / "closed/f").write_text("x")
        (source / "closed/f").chmod(0o400)
        os.utime(source / "closed/f", ns=(1, 123_456_789))
        (source / "closed").chmod(0o500)
        os.utime(source / "closed", ns=(1, 987_654_321))
        (source / "out").symlink_to("/etc/passwd")
        (source / "dangling").symlink_to(os.fsdecode(b"\xff\n"))
        os.utime(source / "out", ns=(1, 5), follow_symlinks=False)
        source.chmod(0o711)
        os.utime(source, ns=(1, 7))
        copy = copy_tree(source, place / "target")
        assert described(place / "target") == described(source)
        assert copy.files == len(described(source))
        for path in ("", "closed", "closed/f", "out"):
            one, other = (source / path).lstat(), (place / "target" / path).lstat()
            assert (one.st_mode, one.st_mtime_ns) == (other.st_mode, other.st_mtime_ns)

    @as_root
    def test_owners_are_the_same(self, source: Path, place: Path) -> None:
        (source / "d").mkdir()
        (source / "d/f").touch()
        (source / "d/link").symlink_to("f")
        for number, path in enumerate(["", "d", "d/f", "d/link"]):
            os.lchown(source / path, 1000 + number, 2000 + number)
        copy_tree(source, place / "target")
        for number, path in enumerate(["", "d", "d/f", "d/link"]):
            found = (place / "target" / path).lstat()
            assert (found.st_uid, found.st_gid) == (1000 + number, 2000 + number)

    def test_no_copy_runs_as_somebody_else(self, source: Path, place: Path) -> None:
        (source / "f").touch()
        (source / "f").chmod(0o6755)
        (source / "d").mkdir()
        (source / "d").chmod(0o3777)
        copy_tree(source, place / "target")
        assert described(place / "target") == {"f": (stat.S_IFREG, 0o755, b""), "d": (stat.S_IFDIR, 0o777, None)}

    def test_hard_links_among_what_is_copied_are_kept_and_others_not(self, source: Path, place: Path) -> None:
        (place / "outside").write_text("outside")
        os.link(place / "outside", source / "lone")
        (source / "d").mkdir()
        (source / "d/one").write_text("x")
        os.link(source / "d/one", source / "two")
        os.link(source / "d/one", source / "d/three")
        copy = copy_tree(source, place / "target")
        target = place / "target"
        assert described(target) == described(source)
        assert (target / "two").stat().st_ino == (target / "d/one").stat().st_ino == (target / "d/three").stat().st_ino
        assert (target / "two").stat().st_nlink == 3
        assert (target / "lone").stat().st_nlink == 1
        assert copy == TreeCopy(files=5, bytes=8, skipped=0)

    def test_a_file_with_more_names_than_a_file_can_have_beside_ours_is_copied(
        self, source: Path, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (source / "one").write_text("x")
        os.link(source / "one", source / "two")
        os.link(source / "one", source / "three")
        real = os.link

        def limited(*names: str, **folders: int) -> None:
            if os.stat(names[0], dir_fd=folders["src_dir_fd"]).st_nlink >= 2:
                raise OSError(errno.EMLINK, "too many links")
            real(*names, **folders)

        monkeypatch.setattr(os, "link", limited)
        copy_tree(source, place / "target")
        assert described(place / "target") == described(source)

    def test_what_cannot_be_copied_is_left_out_and_counted(self, source: Path, place: Path) -> None:
        special = make_special(source)
        (source / "f").write_text("x")
        assert copy_tree(source, place / "target") == TreeCopy(files=1, bytes=1, skipped=len(special))
        assert os.listdir(place / "target") == ["f"]

    def test_a_file_that_a_process_holds_a_lease_on_is_left_out_and_counted(self, source: Path, place: Path) -> None:
        held = os.open(source / "f", os.O_RDWR | os.O_CREAT)
        fcntl.fcntl(held, fcntl.F_SETSIG, 23)  # SIGURG is ignored
        fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        assert copy_tree(source, place / "target").skipped == 1
        os.close(held)

    def test_a_deep_tree_is_copied(self, source: Path, place: Path) -> None:
        make_deep(source, 5000)
        assert copy_tree(source, place / "target").files == 5001
        assert measure(place / "target").files == 5001

    def test_a_target_that_exists_is_not_touched(self, source: Path, place: Path) -> None:
        (source / "f").touch()
        (place / "target").mkdir()
        with pytest.raises(FileExistsError):
            copy_tree(source, place / "target")
        (place / "target/mine").touch()
        with pytest.raises(OSError, match="not empty") as caught:
            copy_tree(source, place / "target", into_existing=True)
        assert caught.value.errno == errno.ENOTEMPTY
        assert os.listdir(place / "target") == ["mine"]

    def test_an_empty_directory_is_filled(self, source: Path, place: Path) -> None:
        (source / "f").write_text("x")
        source.chmod(0o710)
        (place / "target").mkdir()
        inode = (place / "target").stat().st_ino
        copy_tree(source, place / "target", into_existing=True)
        assert (place / "target").stat().st_ino == inode
        assert described(place / "target") == described(source)
        assert stat.S_IMODE((place / "target").stat().st_mode) == 0o710

    def test_a_source_that_is_missing_or_a_link_makes_nothing(self, source: Path, place: Path) -> None:
        (place / "link").symlink_to(source)
        for name in ("missing", "link"):
            with pytest.raises(OSError, match=r"No such file|Not a directory"):
                copy_tree(place / name, place / "target")
        assert sorted(os.listdir(place)) == ["link", "source"]


class TestCancelling:
    @pytest.mark.parametrize("into_existing", [False, True])
    @pytest.mark.parametrize("after", [0, 1, 10, 50, 59])
    def test_a_copy_that_is_broken_off_leaves_nothing(
        self, source: Path, place: Path, after: int, into_existing: bool
    ) -> None:
        for number in range(20):
            (source / f"d{number}").mkdir()
            (source / f"d{number}/f").write_text("x")
            os.link(source / f"d{number}/f", source / f"again{number}")
        calls = 0

        def proceed(copied: int) -> None:
            nonlocal calls
            calls += 1
            if calls > after:
                raise KeyboardInterrupt

        if into_existing:
            (place / "target").mkdir()
        before = described(place)
        with pytest.raises(KeyboardInterrupt):
            copy_tree(source, place / "target", proceed=proceed, into_existing=into_existing)
        assert described(place) == before

    def test_the_bytes_so_far_are_told_within_a_large_file_too(self, source: Path, place: Path) -> None:
        (source / "large").write_bytes(bytes(50_000_000))
        told: list[int] = []
        copy = copy_tree(source, place / "target", proceed=told.append)
        assert told == sorted(told)
        assert told[0] == 0
        assert told[-1] == copy.bytes == 50_000_000
        assert len(set(told)) > 3

    def test_no_room_leaves_nothing(self, source: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (source / "a").write_bytes(bytes(1000))
        (source / "large").write_bytes(bytes(1_000_000))
        old = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, old[1]))
        try:
            with pytest.raises(OSError, match="too large"):
                copy_tree(source, place / "target")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
            signal.signal(signal.SIGXFSZ, ignored)
        assert os.listdir(place) == ["source"]


def swap_directory(source: Path) -> None:
    (source / "d").rename(source / "moved")
    (source / "d").symlink_to("../secret")


def swap_file(source: Path) -> None:
    (source / "f").unlink()
    (source / "f").symlink_to("../secret/f")


def make_pipe(source: Path) -> None:
    (source / "f").unlink()
    os.mkfifo(source / "f")


def make_directory(source: Path) -> None:
    (source / "f").unlink()
    (source / "f").mkdir()


class TestChanges:
    @pytest.mark.parametrize(
        ("change", "files", "skipped"),
        [
            (lambda source: (source / "f").unlink(), ["d", "d/f"], 0),
            (lambda source: (source / "d").rename(source / "moved"), ["f"], 0),
            (swap_directory, ["f"], 0),
            (swap_file, ["d", "d/f"], 0),
            (make_pipe, ["d", "d/f"], 1),
            (make_directory, ["d", "d/f"], 1),
            (lambda source: os.truncate(source / "f", 10), ["d", "d/f", "f"], 0),
        ],
    )
    def test_what_changes_after_it_was_seen_is_tolerated(
        self, source: Path, place: Path, change: Callable[[Path], None], files: list[str], skipped: int
    ) -> None:
        (place / "secret").mkdir()
        (place / "secret/f").write_text("SECRET")
        (source / "f").write_bytes(b"x" * 100_000)
        (source / "d").mkdir()
        (source / "d/f").write_text("y")
        changes = [change]

        def proceed(_: int) -> None:
            # The first call is for `f`, which was seen, but not opened yet.
            if changes:
                changes.pop()(source)

        copy = copy_tree(source, place / "target", proceed=proceed)
        found = described(place / "target")
        # A link that came in time is copied as such.
        assert sorted(path for path, (kind, *_) in found.items() if kind != stat.S_IFLNK) == files
        assert copy.skipped == skipped
        assert b"SECRET" not in {content for _, _, content in found.values()}

    @pytest.mark.usefixtures("way")
    def test_a_file_that_grows_without_end_is_copied_to_an_end(self, source: Path, place: Path) -> None:
        (source / "f").write_bytes(b"x" * 1_000_000)
        calls = 0

        def proceed(copied: int) -> None:
            nonlocal calls
            calls += 1
            with open(source / "f", "ab") as file:
                file.write(b"x" * 1_000_000)

        copy_tree(source, place / "target", proceed=proceed)
        assert (place / "target/f").stat().st_size == 2_000_000

    @pytest.mark.usefixtures("way")
    def test_a_file_that_is_cut_while_it_is_copied_is_copied_as_far_as_it_goes(self, source: Path, place: Path) -> None:
        (source / "f").write_bytes(b"x" * 40_000_000)

        def proceed(copied: int) -> None:
            if copied:
                os.truncate(source / "f", 1000)

        copy_tree(source, place / "target", proceed=proceed)
        assert (place / "target/f").read_bytes() in (b"x" * 1000, b"x" * 40_000_000)

    def test_a_name_that_comes_twice_is_copied_once(
        self, source: Path, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # As when the system reads a directory out that changes meanwhile.
        def twice(root: int) -> Generator[Step]:
            yield from walk(root)
            make_directory(source)
            yield from walk(root)

        monkeypatch.setattr(copying, "walk", twice)
        (source / "f").write_text("x")
        (source / "d").mkdir()
        (source / "d/f").write_text("y")
        (source / "d/link").symlink_to("f")
        copy_tree(source, place / "target")
        assert described(place / "target") == described(source)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_while_a_directory_is_swapped_with_a_link_nothing_outside_is_copied(place: Path) -> None:
    root = place / "root"
    (root / "a/b").mkdir(parents=True)
    (root / "a/f").write_text("inside")
    (root / "a/b/f").write_text("inside")
    (place / "secret/b").mkdir(parents=True)
    (place / "secret/f").write_text("SECRET")
    (place / "secret/b/f").write_text("SECRET")
    (root / "swapped").symlink_to("../secret")
    (root / "f").write_text("inside")
    (root / "link").symlink_to("../secret/f")
    seen: set[str] = set()
    with swapping(root / "a", root / "swapped"), swapping(root / "f", root / "link"):
        for number in attempts(200, lambda: len(seen) > 1):
            copy_tree(root, place / f"target{number}")
            found = described(place / f"target{number}")
            seen.add(" ".join(sorted(found)))
            contents = {content for kind, _, content in found.values() if kind == stat.S_IFREG}
            assert contents <= {b"inside"}
    assert len(seen) > 1
