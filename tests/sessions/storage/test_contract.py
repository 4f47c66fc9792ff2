"""Every way of keeping users' directories does the same: makes, moves, replaces, deletes, and survives being killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from pydantic_ai_sandbox.sessions.storage import Storage
from tests.forked import Forked
from tests.sessions.storage.keeping import MIB, QUOTA, UID, mounts, read, write
from tests.trees.making import attempts

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can have mounts of its own")


class TestCreate:
    def test_a_new_directory_is_empty_and_its_owners_alone(self, storage: Storage, root: Path) -> None:
        storage.create(root / "alice", UID)
        found = (root / "alice").stat()
        assert found.st_mode & 0o777 == 0o700
        assert found.st_uid == (UID if os.geteuid() == 0 else os.geteuid())
        assert read(root / "alice") == {}
        assert sorted({path.name for path in root.iterdir()} - {".manager"}) == ["alice"]

    def test_one_that_exists_stays_as_it_is(self, storage: Storage, root: Path) -> None:
        storage.create(root / "alice", UID)
        write(root / "alice", f="kept")
        with pytest.raises(FileExistsError):
            storage.create(root / "alice", UID)
        assert read(root / "alice") == {"f": "kept"}


class TestOpen:
    def test_there_must_be_one(self, storage: Storage, root: Path) -> None:
        with pytest.raises(FileNotFoundError):
            storage.open(root / "alice")

    def test_one_that_can_be_used_stays_as_it_is(self, storage: Storage, root: Path) -> None:
        storage.create(root / "alice", UID)
        write(root / "alice", f="kept")
        before, mounted = (root / "alice").stat(), mounts(root)
        storage.open(root / "alice")
        assert (root / "alice").stat().st_ino == before.st_ino
        assert mounts(root) == mounted
        assert read(root / "alice") == {"f": "kept"}


class TestMove:
    @as_root
    def test_a_container_that_has_it_mounted_goes_on_showing_it(self, storage: Storage, root: Path) -> None:
        source, target, seen = root / ".manager/warm/token", root / "alice", root.parent / "seen"
        source.parent.mkdir(parents=True)
        seen.mkdir()
        storage.create(source, UID)
        write(source, before="moving")
        script = (
            'mount --bind "$0" "$1" && stat -c %i "$1" && read x && stat -c %i "$1" && cat "$1"/* && echo -n us >"$1"/c'
        )
        with subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(source), str(seen)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as container:
            assert container.stdout is not None
            inode = container.stdout.readline()
            storage.move(source, target)
            write(target, later="on")
            output, _ = container.communicate("go on\n", timeout=60)
        assert output == f"{inode}movingon"
        assert read(target) == {"before": "moving", "later": "on", "c": "us"}
        assert not source.exists()

    @as_root
    def test_a_container_that_starts_later_sees_the_same_files(self, storage: Storage, root: Path) -> None:
        source, target, seen = root / ".manager/warm/token", root / "alice", root.parent / "seen"
        source.parent.mkdir(parents=True)
        seen.mkdir()
        storage.create(source, UID)
        storage.move(source, target)
        write(target, f="here")
        shown = subprocess.run(
            ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" "$1" && cat "$1/f"', str(target), str(seen)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert shown.stdout == "here"

    @pytest.mark.parametrize("kind", ["empty directory", "one in use"])
    def test_it_never_replaces(self, storage: Storage, root: Path, kind: str) -> None:
        storage.create(root / "bob", UID)
        write(root / "bob", f="moving")
        if kind == "empty directory":
            (root / "alice").mkdir()
        else:
            storage.create(root / "alice", UID)
            write(root / "alice", f="kept")
        before = read(root / "alice")
        with pytest.raises(FileExistsError):
            storage.move(root / "bob", root / "alice")
        assert (read(root / "alice"), read(root / "bob")) == (before, {"f": "moving"})

    def test_there_must_be_one(self, storage: Storage, root: Path) -> None:
        with pytest.raises(FileNotFoundError):
            storage.move(root / "bob", root / "alice")
        assert not (root / "alice").exists()


class TestReplace:
    def test_the_old_one_is_there_until_the_new_one_is_whole(self, storage: Storage, root: Path) -> None:
        storage.create(root / "alice", UID)
        write(root / "alice", old="old")
        before = (root / "alice").stat()

        def fill(directory: Path) -> None:
            assert read(root / "alice") == {"old": "old"}
            assert (directory.stat().st_uid, directory.stat().st_mode) == (before.st_uid, before.st_mode)
            assert read(directory) == {}
            write(directory, new="new")

        storage.replace(root / "alice", fill)
        assert read(root / "alice") == {"new": "new"}
        assert left_over(root) == []

    def test_when_filling_fails_the_old_one_stays(self, storage: Storage, root: Path) -> None:
        storage.create(root / "alice", UID)
        write(root / "alice", old="old")

        def fill(directory: Path) -> None:
            write(directory, half="half")
            raise InterruptedError("nobody waits for it any more")

        with pytest.raises(InterruptedError):
            storage.replace(root / "alice", fill)
        assert read(root / "alice") == {"old": "old"}
        assert left_over(root) == []

    def test_nobody_tidies_away_what_is_being_filled_however_long_it_takes(
        self, storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pydantic_ai_sandbox.sessions.storage.working._STALE", -1.0)
        storage.create(root / "alice", UID)

        def fill(directory: Path) -> None:
            write(directory, first="first")
            storage.tidy()
            write(directory, second="second")

        storage.replace(root / "alice", fill)
        storage.tidy()
        assert read(root / "alice") == {"first": "first", "second": "second"}

    @pytest.mark.slow
    @pytest.mark.timeout(300)
    def test_whoever_is_killed_leaves_the_old_one_or_the_new_one_whole(self, storage: Storage, root: Path) -> None:
        moments = seeded()
        storage.create(root / "alice", UID)
        write(root / "alice", **{f"f{name}": "at first" for name in range(50)})
        seen: set[str] = set()
        for number in attempts(20, lambda: len(seen) > 1):
            # On a busy machine one that is killed as soon may never have done anything.
            kill_one(REPLACING, storage, root, moments, longer=1 + number // 20)
            storage.open(root / "alice")
            files = read(root / "alice")
            assert len(files) == 50
            assert len(set(files.values())) == 1
            seen.update(files.values())
        assert len(seen) > 1, "it was always killed before it had done anything"


class TestDelete:
    def test_it_goes_with_all_that_is_in_it(self, storage: Storage, root: Path) -> None:
        storage.create(root / "alice", UID)
        write(root / "alice", f="secret")
        (root / "alice/deep/deeper").mkdir(parents=True)
        assert storage.delete(root / "alice")
        assert not storage.delete(root / "alice")
        assert [path.name for path in root.iterdir()] == [".manager"]
        assert left_over(root) == []
        assert mounts(root) == []
        storage.create(root / "alice", UID)
        assert read(root / "alice") == {}

    def test_a_process_that_uses_it_does_not_keep_it(self, storage: Storage, root: Path) -> None:
        storage.create(root / "alice", UID)
        write(root / "alice", f="kept open")
        with (root / "alice/f").open() as file:
            assert storage.delete(root / "alice")
            storage.create(root / "alice", UID)
            assert read(root / "alice") == {}
            assert file.read() == "kept open"

    @pytest.mark.slow
    @pytest.mark.timeout(300)
    def test_whoever_is_killed_at_anything_leaves_a_whole_one_or_none(
        self, storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        moments = seeded()
        (root / ".manager").mkdir()
        for _ in range(20):
            kill_one(LIVING, storage, root, moments)
            if (root / "alice").exists():
                storage.open(root / "alice")
                # One that was just made is empty.
                assert read(root / "alice") in ({"f": "whole"}, {"f": "whole", "g": "new"}, {})
            storage.delete(root / "alice")
            storage.delete(root / ".manager/token")
        monkeypatch.setattr("pydantic_ai_sandbox.sessions.storage.working._STALE", -1.0)
        storage.tidy()
        assert left_over(root) == []
        assert mounts(root) == []


class TestUsage:
    def test_it_says_what_there_is(self, storage: Storage, root: Path) -> None:
        storage.create(root / "alice", UID)
        before = storage.usage(root / "alice")
        (root / "alice/f").write_bytes(os.urandom(3 * MIB))
        with (root / "alice/f").open("rb") as file:
            os.fsync(file.fileno())
        after = storage.usage(root / "alice")
        assert before.files == 0
        assert 3 * MIB <= after.used - before.used < 4 * MIB
        assert after.files == 1

    def test_it_says_what_there_may_be(self, storage: Storage, root: Path) -> None:
        storage.create(root / "alice", UID)
        limit = storage.usage(root / "alice").limit
        assert limit is None if storage.level == "none" else limit is not None and 0.7 * QUOTA < limit <= QUOTA

    def test_there_must_be_one(self, storage: Storage, root: Path) -> None:
        with pytest.raises(FileNotFoundError):
            storage.usage(root / "alice")


class TestTidy:
    def test_only_what_was_broken_off_long_ago_goes(
        self, storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage.create(root / "alice", UID)
        write(root / "alice", f="kept")
        for folder in ("replacing", "deleting"):
            (root / ".manager" / folder / "x/y").mkdir(parents=True)
        (root / ".manager/deleting/pipe").touch()
        storage.tidy()
        assert len(left_over(root)) == 3, "somebody may be at work there"
        monkeypatch.setattr("pydantic_ai_sandbox.sessions.storage.working._STALE", -1.0)
        storage.tidy()
        assert left_over(root) == []
        storage.open(root / "alice")
        assert read(root / "alice") == {"f": "kept"}


def left_over(root: Path) -> list[Path]:
    """What is in the manager's folder beside images and locks of directories that there are."""
    there = {f"{path.name}{kind}" for path in root.iterdir() for kind in (".img", ".lock")}
    return [path for path in (root / ".manager").glob("*/*") if path.name not in there]


def seeded() -> random.Random:
    seed = random.randrange(2**32)
    print("seed", seed)
    return random.Random(seed)


def kill_one(program: str, storage: Storage, root: Path, moments: random.Random, *, longer: int = 1) -> None:
    """Start one that does the same again and again, and kill it at some moment, which may be `longer` times as late."""
    with Forked(BEGINNING + program, storage.level, str(root)) as worker:
        assert worker.readline() == "begins\n"
        time.sleep(moments.random() * longer * (1.0 if storage.level == "loopback" else 0.1))
        assert worker.kill() == -signal.SIGKILL, "it ended by itself"


BEGINNING = """
import sys
from pathlib import Path
from tests.sessions.storage.keeping import MAKERS, UID, write
root = Path(sys.argv[2])
storage, path, token = MAKERS[sys.argv[1]](root), root / "alice", root / ".manager/token"
print("begins", flush=True)
"""

REPLACING = """
for number in range(1_000_000):
    storage.replace(path, lambda directory: write(directory, **{f"f{name}": str(number) for name in range(50)}))
"""

LIVING = """
while True:
    storage.create(token, UID)
    (token / "draft").write_text("whole")
    (token / "draft").rename(token / "f")
    storage.move(token, path)
    storage.open(path)
    storage.replace(path, lambda directory: write(directory, f="whole", g="new"))
    storage.delete(path)
    storage.create(path, UID)
    storage.delete(path)
"""
