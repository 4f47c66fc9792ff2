"""Every way of keeping users' directories does the same: makes, moves, replaces, deletes, and survives being killed."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from pydantic_ai_sandbox.errors import SandboxError
from pydantic_ai_sandbox.sessions.storage import LoopbackStorage, PlainStorage, Storage, choose_storage
from pydantic_ai_sandbox.sessions.storage.mounting import is_mounted, missing_programs, unmount

MIB = 1024 * 1024

QUOTA = 16 * MIB

NO_LOOPBACK = "only root can mount" if os.geteuid() else ", ".join(missing_programs())

needs_loopback = pytest.mark.skipif(bool(NO_LOOPBACK), reason=NO_LOOPBACK)

MAKERS: dict[str, Callable[[Path], Storage]] = {
    "none": PlainStorage,
    "soft": lambda root: PlainStorage(root, QUOTA),
    "loopback": lambda root: LoopbackStorage(root, QUOTA),
}


def mounts(root: Path) -> list[str]:
    """Where below a root something is mounted."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [path for path in (line.split()[4] for line in lines) if path.startswith(f"{root}/")]


def attached(root: Path) -> str:
    return (
        subprocess.run(["losetup", "--all"], capture_output=True, text=True, check=True).stdout.count(f"({root}/") * "x"
    )


@pytest.fixture
def root(tmp_path: Path) -> Generator[Path]:
    """A root whose mounts and loop devices go with the test."""
    yield tmp_path
    for path in reversed(mounts(tmp_path)):
        unmount(Path(path))
    give_up = time.monotonic() + 10
    while attached(tmp_path) and time.monotonic() < give_up:
        time.sleep(0.05)
    assert not attached(tmp_path), "a loop device is left"


@pytest.fixture(params=[pytest.param(name, marks=needs_loopback if name == "loopback" else ()) for name in MAKERS])
def storage(request: pytest.FixtureRequest, root: Path) -> Storage:
    return MAKERS[request.param](root)


def write(path: Path, **files: str) -> None:
    for name, content in files.items():
        (path / name).write_text(content)


def read(path: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in path.iterdir()}


def test_a_new_directory_is_empty_and_its_owners_alone(storage: Storage, root: Path) -> None:
    storage.create(root / "alice", 10001)
    found = (root / "alice").stat()
    assert (found.st_mode & 0o777, list((root / "alice").iterdir())) == (0o700, [])
    assert found.st_uid == (10001 if os.geteuid() == 0 else os.geteuid())
    with pytest.raises(FileExistsError):
        storage.create(root / "alice", 10001)
    storage.open(root / "alice")
    assert storage.delete(root / "alice")
    assert not storage.delete(root / "alice")
    assert [path.name for path in root.iterdir()] == [".manager"]
    with pytest.raises(FileNotFoundError):
        storage.open(root / "alice")


def test_deleting_takes_everything_and_a_new_one_begins_with_nothing(storage: Storage, root: Path) -> None:
    storage.create(root / "alice", 10001)
    write(root / "alice", f="secret")
    (root / "alice/deep").mkdir()
    assert storage.delete(root / "alice")
    storage.create(root / "alice", 10001)
    assert read(root / "alice") == {}


def test_usage_says_what_there_is(storage: Storage, root: Path) -> None:
    storage.create(root / "alice", 10001)
    before = storage.usage(root / "alice")
    (root / "alice/f").write_bytes(os.urandom(3 * MIB))
    with (root / "alice/f").open("rb") as file:
        os.fsync(file.fileno())
    after = storage.usage(root / "alice")
    assert 3 * MIB <= after.used - before.used < 4 * MIB
    assert after.files - before.files == 1
    assert after.limit is None if storage.level == "none" else after.limit is not None and after.limit <= QUOTA
    with pytest.raises(FileNotFoundError):
        storage.usage(root / "nobody")


def test_what_has_it_mounted_goes_on_showing_a_directory_that_is_moved(storage: Storage, root: Path) -> None:
    (root / ".manager").mkdir()
    source, target = root / ".manager/token", root / "alice"
    storage.create(source, 10001)
    write(source, before="moving")
    script = (
        f"mount --make-rprivate / && mkdir {root}/seen && mount --bind {source} {root}/seen && echo ready && "
        f"read x && cat {root}/seen/*"
    )
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as container:
        assert container.stdout is not None
        assert container.stdout.readline() == "ready\n"
        storage.move(source, target)
        assert read(target) == {"before": "moving"}
        write(target, later="on")
        out, _ = container.communicate("go on\n")
    assert out == "movingon"
    assert not source.exists()
    storage.create(root / "bob", 10001)
    for existing in (target, root / "bob"):
        storage.create(source, 10001)
        with pytest.raises(FileExistsError):
            storage.move(source, existing)
        storage.delete(source)
    assert read(target) == {"before": "moving", "later": "on"}


def test_replacing_is_one_step_and_leaves_nothing_behind(storage: Storage, root: Path) -> None:
    storage.create(root / "alice", 10001)
    write(root / "alice", old="old")

    def fill(directory: Path) -> None:
        assert read(root / "alice") == {"old": "old"}
        write(directory, new="new")

    storage.replace(root / "alice", fill)
    assert read(root / "alice") == {"new": "new"}
    with pytest.raises(RuntimeError, match="not now"):
        storage.replace(root / "alice", fail)
    assert read(root / "alice") == {"new": "new"}
    left = [path for path in (root / ".manager").glob("*/*") if path.suffix != ".img"]
    assert left == []


def fail(directory: Path) -> None:
    write(directory, half="half")
    raise RuntimeError("not now")


def replace_for_ever(storage: Storage, path: Path) -> None:
    for number in range(1_000_000):

        def fill(directory: Path, content: str = str(number)) -> None:
            for name in range(50):
                (directory / f"f{name}").write_text(content)

        storage.replace(path, fill)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_whoever_is_killed_while_replacing_leaves_the_old_or_the_new(storage: Storage, root: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    moments = random.Random(seed)
    storage.create(root / "alice", 10001)
    for name in range(50):
        (root / "alice" / f"f{name}").write_text("at first")
    for _ in range(20):
        child = os.fork()
        if child == 0:
            try:
                replace_for_ever(storage, root / "alice")
            finally:
                os._exit(1)
        time.sleep(0.02 + 0.3 * moments.random())
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        # As whoever uses it next would: what is there is made usable, and only what is not there is made.
        if (root / "alice").exists():
            storage.open(root / "alice")
        else:
            storage.create(root / "alice", 10001)
        files = read(root / "alice")
        assert len(files) == 50
        assert len(set(files.values())) == 1


def test_what_was_broken_off_long_ago_is_tidied_away(
    storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.create(root / "alice", 10001)
    write(root / "alice", f="kept")
    for folder in ("replacing", "deleting", "mounting", "disks"):
        (root / ".manager" / folder).mkdir(parents=True, exist_ok=True)
    (root / ".manager/replacing/x").mkdir()
    (root / ".manager/deleting/x").mkdir()
    storage.tidy()
    assert (root / ".manager/replacing/x").exists(), "somebody may be at work there"
    monkeypatch.setattr("pydantic_ai_sandbox.sessions.storage.plain._STALE", -1.0)
    storage.tidy()
    assert not (root / ".manager/replacing/x").exists()
    assert not (root / ".manager/deleting/x").exists()
    storage.open(root / "alice")
    assert read(root / "alice") == {"f": "kept"}


# --- a file system of its own


@needs_loopback
def test_a_full_one_is_full_in_bytes_and_in_files_while_a_neighbour_writes_on(root: Path) -> None:
    storage = LoopbackStorage(root, QUOTA)
    for user in ("alice", "bob"):
        storage.create(root / user, 10001)
    with pytest.raises(OSError, match="No space left") as caught:
        (root / "alice/big").write_bytes(bytes(2 * QUOTA))
    assert caught.value.errno == errno.ENOSPC
    (root / "bob/f").write_bytes(bytes(QUOTA // 2))
    (root / "alice/big").unlink()
    with pytest.raises(OSError, match="No space left"):
        for number in range(10_000):
            (root / f"alice/{number}").touch()
    (root / "bob/g").write_text("on")


@needs_loopback
def test_after_a_restart_of_the_machine_it_is_mounted_again_and_nobody_writes_beneath(root: Path) -> None:
    storage = LoopbackStorage(root, QUOTA)
    storage.create(root / "alice", 10001)
    write(root / "alice", f="kept")
    unmount(root / "alice")
    assert (root / "alice").stat().st_mode & 0o777 == 0
    assert list((root / "alice").iterdir()) == []
    LoopbackStorage(root, QUOTA).open(root / "alice")
    assert read(root / "alice") == {"f": "kept"}
    assert storage.usage(root / "alice").limit is not None


@needs_loopback
@pytest.mark.parametrize("step", ["view", "unmount"])
def test_a_move_that_breaks_off_is_finished_by_the_next_use(
    root: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    storage = LoopbackStorage(root, QUOTA)
    (root / ".manager").mkdir(exist_ok=True)
    storage.create(root / ".manager/token", 10001)
    write(root / ".manager/token", f="kept")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"pydantic_ai_sandbox.sessions.storage.loopback.{step}", killed)
        with pytest.raises(KeyboardInterrupt):
            storage.move(root / ".manager/token", root / "alice")
    storage.open(root / "alice")
    assert read(root / "alice") == {"f": "kept"}
    # The same file system, not a second one over the same image.
    write(root / "alice", g="seen by both")
    assert read(root / ".manager/token") == read(root / "alice")
    assert storage.delete(root / ".manager/token")
    assert read(root / "alice") == {"f": "kept", "g": "seen by both"}


@needs_loopback
def test_a_larger_quota_is_given_when_it_is_mounted_next(root: Path) -> None:
    small = LoopbackStorage(root, QUOTA)
    small.create(root / "alice", 10001)
    write(root / "alice", f="kept")
    unmount(root / "alice")
    large = LoopbackStorage(root, 4 * QUOTA)
    large.open(root / "alice")
    (root / "alice/big").write_bytes(bytes(2 * QUOTA))
    assert (root / "alice/f").read_text() == "kept"
    assert (large.usage(root / "alice").limit or 0) > 3 * QUOTA


@needs_loopback
def test_a_directory_from_before_the_quota_is_used_as_it_is_and_gets_one_when_replaced(root: Path) -> None:
    PlainStorage(root).create(root / "alice", 10001)
    write(root / "alice", f="old")
    storage = LoopbackStorage(root, QUOTA)
    storage.open(root / "alice")
    assert storage.usage(root / "alice").limit is None
    storage.replace(root / "alice", lambda directory: write(directory, f="new"))
    assert is_mounted(root / "alice")
    assert read(root / "alice") == {"f": "new"}
    assert storage.usage(root / "alice").limit is not None
    PlainStorage(root).create(root / "bob", 10001)
    assert storage.delete(root / "bob")


# --- choosing


@needs_loopback
def test_the_best_there_is_is_found_by_trying_and_the_trial_leaves_nothing(root: Path) -> None:
    assert choose_storage(root, None, require_hard=False).level == "none"
    assert choose_storage(root, QUOTA, require_hard=True).level == "loopback"
    assert mounts(root) == []
    assert [path.name for path in (root / ".manager").iterdir()] == ["disks"]
    assert list((root / ".manager/disks").iterdir()) == []


def test_where_nothing_better_can_be_had_the_soft_quota_serves_unless_it_must_not(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 10001)
    assert choose_storage(root, QUOTA, require_hard=False).level == "soft"
    with pytest.raises(SandboxError, match="only root can mount"):
        choose_storage(root, QUOTA, require_hard=True)


@needs_loopback
def test_file_systems_are_never_taken_for_plain_directories(root: Path) -> None:
    choose_storage(root, QUOTA, require_hard=True).create(root / "alice", 10001)
    with pytest.raises(SandboxError, match="file systems of their own"):
        choose_storage(root, None, require_hard=False)


@needs_loopback
def test_a_host_whose_programs_do_not_work_is_found_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pydantic_ai_sandbox.sessions.storage.mounting._OPTIONS", "loop,nonsense=1")
    assert choose_storage(root, QUOTA, require_hard=False).level == "soft"
    assert mounts(root) == []
