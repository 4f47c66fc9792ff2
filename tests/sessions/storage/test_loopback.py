"""A file system for every user: full is full, nothing lies beneath it, and no crash, restart or full disk mixes things up."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from pydantic_ai_sandbox.errors import SandboxError
from pydantic_ai_sandbox.sessions.storage import LoopbackStorage, PlainStorage
from pydantic_ai_sandbox.sessions.storage.mounting import check_image, is_attached, is_mounted, make_image
from tests.sessions.storage.keeping import MIB, QUOTA, UID, loops, mounts, needs_loopback, read, reboot, write

# A container that is being started has a copy of every mount, and a file system that has one is in use.
pytestmark = [needs_loopback, pytest.mark.alone]


@pytest.fixture
def storage(root: Path) -> LoopbackStorage:
    return LoopbackStorage(root, QUOTA)


def fill_up(path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        path.write_bytes(bytes(2 * QUOTA))
    assert caught.value.errno == errno.ENOSPC


class TestTheQuota:
    def test_a_full_one_is_full_in_bytes_while_a_neighbour_writes_on(
        self, storage: LoopbackStorage, root: Path
    ) -> None:
        for user in ("alice", "bob"):
            storage.create(root / user, UID)
        fill_up(root / "alice/big")
        usage = storage.usage(root / "alice")
        assert usage.limit is not None
        assert 0.9 * usage.limit < usage.used <= usage.limit <= QUOTA
        (root / "bob/f").write_bytes(bytes(QUOTA // 2))

    def test_a_full_one_is_full_in_files_while_a_neighbour_writes_on(
        self, storage: LoopbackStorage, root: Path
    ) -> None:
        for user in ("alice", "bob"):
            storage.create(root / user, UID)
        made = 0
        with pytest.raises(OSError, match="No space left"):
            for made in range(QUOTA // 1024):
                (root / f"alice/{made}").touch()
        assert made == pytest.approx(QUOTA / 16_384, rel=0.1)
        assert storage.usage(root / "alice").files == made
        (root / "bob/f").touch()

    def test_all_of_it_is_the_users_to_fill(self, storage: LoopbackStorage, root: Path) -> None:
        storage.create(root / "alice", UID)
        script = "import os; os.setgid(10001); os.setuid(10001); open('big', 'wb').write(bytes(1 << 25))"
        user = subprocess.run(
            [sys.executable, "-c", script], cwd=root / "alice", capture_output=True, text=True, check=False
        )
        assert "No space left" in user.stderr
        usage = storage.usage(root / "alice")
        assert usage.limit is not None
        assert 0 <= usage.limit - usage.used < 16 * 1024

    def test_what_is_deleted_goes_back_to_the_hosts_disk(self, storage: LoopbackStorage, root: Path) -> None:
        storage.create(root / "alice", UID)
        image = root / ".manager/disks/alice.img"

        def allocated() -> int:
            subprocess.run(["sync", "--file-system", str(root / "alice")], check=True)
            return image.stat().st_blocks * 512

        (root / "alice/big").write_bytes(os.urandom(8 * MIB))
        full = allocated()
        (root / "alice/big").unlink()
        # The file system tells the disk soon after.
        give_up = time.monotonic() + 60
        while allocated() > full - 7 * MIB:
            assert time.monotonic() < give_up
            time.sleep(0.1)

    def test_a_larger_one_is_given_when_it_is_opened_next(self, storage: LoopbackStorage, root: Path) -> None:
        storage.create(root / "alice", UID)
        write(root / "alice", f="kept")
        large = LoopbackStorage(root, 4 * QUOTA)
        large.open(root / "alice")
        assert large.usage(root / "alice").limit == pytest.approx(4 * QUOTA, rel=0.15)
        assert read(root / "alice") == {"f": "kept"}
        (root / "alice/big").write_bytes(bytes(3 * QUOTA))
        before = (root / "alice").stat().st_dev
        large.open(root / "alice")
        assert (root / "alice").stat().st_dev == before

    def test_a_sandbox_that_has_it_mounted_keeps_what_it_has_until_its_end(
        self, storage: LoopbackStorage, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage.create(root / "alice", UID)
        large = LoopbackStorage(root, 4 * QUOTA)
        with mounted_elsewhere(root / "alice") as container:
            with monkeypatch.context() as patch:
                # It would be gone for a moment, with each use.
                patch.setattr("pydantic_ai_sandbox.sessions.storage.loopback.unmount", killed)
                large.open(root / "alice")
            assert (large.usage(root / "alice").limit or 0) < QUOTA
            write(root / "alice", f="seen by both")
            assert container.communicate("go on\n", timeout=60)[0] == "seen by both"
        large.open(root / "alice")
        assert (large.usage(root / "alice").limit or 0) > 3 * QUOTA
        assert read(root / "alice") == {"f": "seen by both"}

    def test_one_that_has_it_open_but_not_mounted_does_not_get_a_second_file_system(
        self, storage: LoopbackStorage, root: Path
    ) -> None:
        storage.create(root / "alice", UID)
        write(root / "alice", f="kept")
        with (root / "alice/f").open("r+") as file:
            LoopbackStorage(root, 4 * QUOTA).open(root / "alice")
            file.write("seen")
            file.flush()
            assert read(root / "alice") == {"f": "seen"}
            assert len(loops(root)) == 1

    def test_it_is_given_also_when_the_last_try_left_the_file_system_in_disorder(
        self, storage: LoopbackStorage, root: Path
    ) -> None:
        storage.create(root / "alice", UID)
        write(root / "alice", f="kept")
        reboot(root)
        image = root / ".manager/disks/alice.img"
        # What is left of one in five that are killed.
        commands = "clri <7>\nset_super_value state 2\n"
        subprocess.run(
            ["/usr/sbin/debugfs", "-w", "-f", "-", image], input=commands, text=True, check=True, capture_output=True
        )
        with pytest.raises(SandboxError, match="Resize inode not valid"):
            check_image(image)
        image.with_suffix(".growing").touch()
        large = LoopbackStorage(root, 4 * QUOTA)
        large.open(root / "alice")
        assert read(root / "alice") == {"f": "kept"}
        assert (large.usage(root / "alice").limit or 0) > 3 * QUOTA
        assert not image.with_suffix(".growing").exists()

    @pytest.mark.slow
    def test_it_is_given_also_when_the_machine_stopped_while_it_was_given(
        self, storage: LoopbackStorage, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seed = random.randrange(2**32)
        print("seed", seed)
        moments = random.Random(seed)
        files = {f"f{number}": str(number) * 200 for number in range(100)}

        def broken_off(image: Path, size: int) -> None:
            process = subprocess.Popen(["/usr/sbin/resize2fs", image, f"{size // 1024}K"], stderr=subprocess.DEVNULL)
            time.sleep(moments.random() * 0.05)
            process.kill()
            process.wait()
            raise KilledError

        large = LoopbackStorage(root, 64 * QUOTA)
        for _ in range(10):
            storage.create(root / "alice", UID)
            write(root / "alice", **files)
            with monkeypatch.context() as patch:
                patch.setattr("pydantic_ai_sandbox.sessions.storage.loopback.grow", broken_off)
                with pytest.raises(KilledError):
                    large.open(root / "alice")
            large.open(root / "alice")
            assert read(root / "alice") == files
            assert large.usage(root / "alice").limit == pytest.approx(64 * QUOTA, rel=0.15)
            assert large.delete(root / "alice")
        assert list((root / ".manager/disks").iterdir()) == []

    def test_a_smaller_one_takes_nothing_away(self, root: Path) -> None:
        large = LoopbackStorage(root, 2 * QUOTA)
        large.create(root / "alice", UID)
        (root / "alice/big").write_bytes(bytes(QUOTA))
        small = LoopbackStorage(root, QUOTA)
        small.open(root / "alice")
        assert (small.usage(root / "alice").limit or 0) > QUOTA
        small.replace(root / "alice", lambda directory: (directory / "big").write_bytes(bytes(QUOTA)))
        assert (root / "alice/big").stat().st_size == QUOTA

    def test_one_that_is_too_small_for_a_file_system_is_refused(self, root: Path) -> None:
        with pytest.raises(SandboxError, match="at least 4194304 bytes"):
            LoopbackStorage(root, MIB)


class TestTheMount:
    def test_nothing_in_it_is_anybody_elses_and_no_device_or_setuid_program_works(
        self, storage: LoopbackStorage, root: Path
    ) -> None:
        storage.create(root / "alice", UID)
        line = next(line for line in Path("/proc/self/mounts").read_text().splitlines() if f" {root}/alice " in line)
        assert {"rw", "nosuid", "nodev"} <= set(line.split()[3].split(","))
        info = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {root}/alice " in line)
        assert "shared:" not in info

    def test_after_a_restart_of_the_machine_nobody_can_write_beneath_and_it_is_mounted_again(
        self, storage: LoopbackStorage, root: Path
    ) -> None:
        storage.create(root / "alice", UID)
        write(root / "alice", f="kept")
        reboot(root)
        assert loops(root) == []
        bare = (root / "alice").stat()
        assert (bare.st_uid, bare.st_mode & 0o777) == (0, 0)
        assert read(root / "alice") == {}
        LoopbackStorage(root, QUOTA).open(root / "alice")
        assert read(root / "alice") == {"f": "kept"}
        assert (root / "alice").stat().st_uid == UID

    def test_of_many_that_open_it_at_once_one_mounts_it(self, storage: LoopbackStorage, root: Path) -> None:
        storage.create(root / "alice", UID)
        reboot(root)
        together = threading.Barrier(8)

        def open_it(_: int) -> None:
            together.wait()
            LoopbackStorage(root, QUOTA).open(root / "alice")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(open_it, range(8)))
        assert mounts(root) == [root / "alice"]
        assert len(loops(root)) == 1

    def test_many_users_are_made_at_once(self, storage: LoopbackStorage, root: Path) -> None:
        users = [root / f"user{number}" for number in range(12)]
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(lambda path: storage.create(path, UID), users))
            for path in users:
                write(path, f=path.name)
            reboot(root)
            list(pool.map(storage.open, users))
        assert [read(path) for path in users] == [{"f": path.name} for path in users]

    def test_a_sandbox_that_has_it_still_and_whoever_mounts_it_again_use_one_file_system(
        self, storage: LoopbackStorage, root: Path
    ) -> None:
        storage.create(root / "alice", UID)
        with mounted_elsewhere(root / "alice") as container:
            subprocess.run(["umount", "--lazy", str(root / "alice")], check=True)
            storage.open(root / "alice")
            write(root / "alice", f="seen by both")
            assert len(loops(root)) == 1
            assert container.communicate("go on\n", timeout=60)[0] == "seen by both"

    def test_a_new_file_system_whose_maker_was_killed_is_closed_to_others(
        self, storage: LoopbackStorage, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("pydantic_ai_sandbox.sessions.storage.mounting.settle", killed)
            with pytest.raises(KilledError):
                storage.create(root / "alice", UID)
        assert is_mounted(root / "alice")
        storage.open(root / "alice")
        assert (root / "alice").stat().st_mode & 0o777 == 0o700
        assert read(root / "alice") == {}

    def test_a_lost_and_found_of_the_users_own_stays(self, storage: LoopbackStorage, root: Path) -> None:
        storage.create(root / "alice", UID)
        (root / "alice/lost+found").mkdir()
        os.chown(root / "alice/lost+found", UID, UID)
        (root / "alice").chmod(0o755)
        storage.open(root / "alice")
        reboot(root)
        storage.open(root / "alice")
        assert (root / "alice/lost+found").is_dir()
        assert (root / "alice").stat().st_mode & 0o777 == 0o755


class TestWhatIsNotAsItShouldBe:
    def test_a_directory_whose_image_is_lost_is_not_used(self, storage: LoopbackStorage, root: Path) -> None:
        storage.create(root / "alice", UID)
        reboot(root)
        image = root / ".manager/disks/alice.img"
        image.rename(image.with_suffix(".elsewhere"))
        for use in (storage.open, storage.usage):
            with pytest.raises(SandboxError, match="is missing: bring it back"):
                use(root / "alice")
        image.with_suffix(".elsewhere").rename(image)
        storage.open(root / "alice")

    def test_a_directory_whose_image_is_lost_can_be_deleted(self, storage: LoopbackStorage, root: Path) -> None:
        storage.create(root / "alice", UID)
        reboot(root)
        (root / ".manager/disks/alice.img").unlink()
        assert storage.delete(root / "alice")
        storage.create(root / "alice", UID)

    def test_files_beneath_are_neither_used_nor_covered(self, storage: LoopbackStorage, root: Path) -> None:
        storage.create(root / "alice", UID)
        write(root / "alice", f="in the image")
        reboot(root)
        write(root / "alice", g="beneath")
        with pytest.raises(SandboxError, match="is not the empty directory"):
            storage.open(root / "alice")
        assert mounts(root) == []
        (root / "alice/g").unlink()
        storage.open(root / "alice")
        assert read(root / "alice") == {"f": "in the image"}

    def test_an_image_that_is_damaged_is_not_mounted(self, storage: LoopbackStorage, root: Path) -> None:
        storage.create(root / "alice", UID)
        reboot(root)
        with (root / ".manager/disks/alice.img").open("r+b") as file:
            file.write(os.urandom(MIB))
        with pytest.raises(SandboxError, match=r"alice\.img is damaged: repair it with e2fsck, or delete it"):
            storage.open(root / "alice")
        assert storage.delete(root / "alice")


class TestAFullDiskOfTheHost:
    """The same on a disk, which is full in bytes, and not in memory that gives up in a worse way."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Generator[Path]:
        image, disk = tmp_path / "disk.img", tmp_path / "disk"
        disk.mkdir()
        with image.open("wb") as file:
            file.truncate(96 * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, disk], check=True)
        root = disk / "root"
        root.mkdir()
        yield root
        reboot(root)
        give_up = time.monotonic() + 20
        # What was unmounted just now is let go of a moment later.
        while subprocess.run(["umount", str(disk)], check=False).returncode and time.monotonic() < give_up:
            time.sleep(0.1)
        assert not disk.is_mount()

    def test_it_takes_nothing_back_and_no_repair_is_needed(self, storage: LoopbackStorage, root: Path) -> None:
        storage.create(root / "alice", UID)
        with (root.parent / "ballast").open("wb", buffering=0) as ballast:
            for piece in (MIB, 4096):
                with pytest.raises(OSError, match="No space left"):
                    while True:
                        ballast.write(bytes(piece))
            os.fsync(ballast.fileno())
        kept: dict[str, str] = {}
        give_up = time.monotonic() + 7
        number = 0
        while time.monotonic() < give_up:
            # Longer than the kernel waits before it writes its journal.
            number += 1
            name, text = f"f{number % 20}", str(number) * 200
            with suppress(OSError), (root / "alice/draft").open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
                (root / "alice/draft").rename(root / "alice" / name)
                kept[name] = text
            time.sleep(0.01)
        (root.parent / "ballast").unlink()
        storage.open(root / "alice")
        write(root / "alice", later="goes on")
        reboot(root)
        storage.open(root / "alice")
        found = read(root / "alice")
        assert found.pop("later") == "goes on"
        assert {name: found.get(name) for name in kept} == kept


class TestAFullHost:
    """Images are sparse, so the host's disk can be full before a user's is."""

    @pytest.fixture
    def root(self, tmp_path: Path) -> Generator[Path]:
        disk = tmp_path / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m,mode=755", "tmpfs", str(disk)], check=True)
        root = disk / "root"
        root.mkdir()
        yield root
        reboot(root)
        subprocess.run(["umount", str(disk)], check=True)
        assert loops(disk) == []

    def test_what_was_written_before_is_there_once_it_has_room_again(
        self, storage: LoopbackStorage, root: Path
    ) -> None:
        storage.create(root / "alice", UID)
        write(root / "alice", f="kept")
        subprocess.run(["sync", "--file-system", str(root / "alice")], check=True)
        ballast = root.parent / "ballast"
        with ballast.open("wb") as file, pytest.raises(OSError, match="No space left"):
            file.write(bytes(64 * MIB))
        with mounted_elsewhere(root / "alice") as container:
            give_up = time.monotonic() + 60
            number = 0
            with pytest.raises(OSError, match=r"Input/output|Read-only|No space left"):
                while time.monotonic() < give_up:
                    number += 1
                    path = root / f"alice/{number}"
                    path.write_bytes(os.urandom(16 * 1024))
                    with path.open("rb") as file:
                        os.fsync(file.fileno())
            with pytest.raises(SandboxError, match="stop the user's sandboxes"):
                while time.monotonic() < give_up:
                    with suppress(OSError):
                        (root / "alice/d").mkdir()
                        subprocess.run(["sync", "--file-system", str(root / "alice")], check=False, capture_output=True)
                        (root / "alice/d").rmdir()
                    storage.open(root / "alice")
            container.communicate("end\n", timeout=60)
        ballast.unlink()
        storage.open(root / "alice")
        assert (root / "alice/f").read_text() == "kept"
        write(root / "alice", g="writable")

    def test_what_was_asked_for_and_cannot_be_made_leaves_nothing(self, storage: LoopbackStorage, root: Path) -> None:
        storage.create(root / "bob", UID)
        with (root.parent / "ballast").open("wb") as file, pytest.raises(OSError, match="No space left"):
            file.write(bytes(64 * MIB))
        with pytest.raises((SandboxError, OSError)):
            storage.create(root / "alice", UID)
        storage.delete(root / "alice")
        assert {path.name for path in (root / ".manager/disks").iterdir()} <= {"bob.img", "bob.lock"}


class TestBrokenOff:
    @pytest.mark.parametrize("step", ["view", "unmount"])
    def test_a_move_is_finished_by_the_next_use(
        self, storage: LoopbackStorage, root: Path, monkeypatch: pytest.MonkeyPatch, step: str
    ) -> None:
        storage.create(root / ".manager/token", UID)
        write(root / ".manager/token", f="kept")
        with monkeypatch.context() as patch:
            patch.setattr(f"pydantic_ai_sandbox.sessions.storage.loopback.{step}", killed)
            with pytest.raises(KilledError):
                storage.move(root / ".manager/token", root / "alice")
        storage.open(root / "alice")
        # The same file system, not a second one over the same image.
        write(root / "alice", g="seen by both")
        assert read(root / ".manager/token") == read(root / "alice") == {"f": "kept", "g": "seen by both"}
        assert storage.delete(root / ".manager/token")
        reboot(root)
        storage.open(root / "alice")
        assert read(root / "alice") == {"f": "kept", "g": "seen by both"}

    def test_a_deletion_does_not_bring_the_files_back(
        self, storage: LoopbackStorage, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        storage.create(root / "alice", UID)
        write(root / "alice", f="secret")
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", killed)
            with pytest.raises(KilledError):
                storage.delete(root / "alice")
        storage.create(root / "alice", UID)
        assert read(root / "alice") == {}

    def test_a_program_that_outlives_its_starter_is_waited_for(self, storage: LoopbackStorage, root: Path) -> None:
        storage.create(root / "alice", UID)
        write(root / "alice", f="kept")
        lock, script = root / ".manager/disks/alice.lock", 'echo; sleep 1; umount --lazy "$0"'
        command = ["flock", str(lock), "sh", "-c", script, str(root / "alice")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == b"\n"
            storage.open(root / "alice")
            assert program.wait() == 0
            assert read(root / "alice") == {"f": "kept"}

    def test_what_a_deletion_left_is_tidied_away(self, storage: LoopbackStorage, root: Path) -> None:
        disks = root / ".manager/disks"
        for path in (root / "alice", root / "bob", root / ".manager/warm/1/token"):
            path.parent.mkdir(parents=True, exist_ok=True)
            storage.create(path, UID)
        reboot(root)
        (root / "bob").rmdir()
        storage.tidy()
        assert {path.name for path in disks.glob("*.img")} == {"alice.img", ".manager.warm.1.token.img"}
        (root / ".manager/warm/1/token").rmdir()
        storage.tidy()
        assert {path.name for path in disks.iterdir()} == {"alice.img", "alice.lock"}

    def test_a_replacement_that_was_being_filled_is_tidied_away(
        self, storage: LoopbackStorage, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        draft, aside = root / ".manager/disks/alice.1.draft", root / ".manager/mounting/alice.1"
        aside.mkdir(parents=True)
        draft.parent.mkdir()
        draft.touch()
        make_image(draft, QUOTA, UID)
        subprocess.run(["mount", "-o", "loop", str(draft), str(aside)], check=True)
        storage.tidy()
        assert mounts(root) == [aside], "somebody may have made it just now"
        monkeypatch.setattr("pydantic_ai_sandbox.sessions.storage.working._STALE", -1.0)
        storage.tidy()
        assert mounts(root) == loops(root) == []
        assert [*(root / ".manager/mounting").iterdir(), *draft.parent.iterdir()] == []


class TestADirectoryFromBeforeTheQuota:
    @pytest.fixture
    def alice(self, root: Path) -> Path:
        PlainStorage(root).create(root / "alice", UID)
        write(root / "alice", f="old")
        return root / "alice"

    def test_it_is_used_as_it_is(self, storage: LoopbackStorage, root: Path, alice: Path) -> None:
        storage.open(alice)
        assert storage.usage(alice).limit is None
        storage.move(alice, root / "bob")
        assert read(root / "bob") == {"f": "old"}
        assert storage.delete(root / "bob")

    def test_it_gets_one_when_it_is_replaced(self, storage: LoopbackStorage, root: Path, alice: Path) -> None:
        storage.replace(alice, lambda directory: write(directory, f="new"))
        assert is_mounted(alice)
        assert read(alice) == {"f": "new"}
        assert storage.usage(alice).limit is not None
        reboot(root)
        storage.open(alice)
        assert read(alice) == {"f": "new"}
        assert list((root / ".manager/replacing").iterdir()) == []

    @pytest.mark.parametrize(("step", "content"), [("exchange", "old"), ("remove_tree", "new")])
    def test_a_replacement_that_breaks_off_leaves_the_one_or_the_other(
        self, storage: LoopbackStorage, alice: Path, monkeypatch: pytest.MonkeyPatch, step: str, content: str
    ) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(f"pydantic_ai_sandbox.sessions.storage.loopback.{step}", killed)
            with pytest.raises(KilledError):
                storage.replace(alice, lambda directory: write(directory, f="new"))
        storage.open(alice)
        assert read(alice) == {"f": content}

    def test_one_that_was_just_exchanged_is_found_by_the_next_use(
        self, storage: LoopbackStorage, root: Path, alice: Path
    ) -> None:
        storage.replace(alice, lambda directory: write(directory, f="new"))
        reboot(root)
        image = root / ".manager/disks/alice.img"
        image.rename(image.with_suffix(".next"))
        storage.open(alice)
        assert read(alice) == {"f": "new"}
        assert is_attached(image)


@contextmanager
def mounted_elsewhere(path: Path) -> Generator[subprocess.Popen[str]]:
    """Has the directory mounted as a sandbox has; prints the file `f` in it when it is told to go on."""
    seen = path.parents[1] / "seen"
    seen.mkdir(exist_ok=True)
    script = 'mount --bind "$0" "$1" && umount --lazy "$0" && echo && read x && cat "$1/f"'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(path), str(seen)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as container:
        assert container.stdout is not None
        assert container.stdout.readline() == "\n"
        yield container


class KilledError(BaseException):
    """Nobody catches it, so that nothing is done after it, as after a real one."""


def killed(*_: object, **__: object) -> None:
    raise KilledError
