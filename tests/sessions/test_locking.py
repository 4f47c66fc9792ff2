"""A lock between processes, which ends with whoever holds it."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pydantic_ai_sandbox.errors import SandboxError
from pydantic_ai_sandbox.sessions import locking
from pydantic_ai_sandbox.sessions.locking import locked
from tests.descriptors import open_below

HOLDER = """
import sys
from pathlib import Path
from pydantic_ai_sandbox.sessions.locking import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_one_thread_at_a_time_is_inside(tmp_path: Path) -> None:
    inside, most = 0, 0

    def enter() -> None:
        nonlocal inside, most
        for _ in range(50):
            with locked(tmp_path / "lock"):
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_another_process_keeps_us_out_until_it_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = holder(tmp_path / "lock")
    try:
        monkeypatch.setattr(locking, "_PATIENCE", 0.2)
        with pytest.raises(SandboxError, match="stays locked"), locked(tmp_path / "lock"):
            raise AssertionError("two are inside")
        monkeypatch.setattr(locking, "_PATIENCE", 60.0)
        threading.Timer(0.2, process.kill).start()
        with locked(tmp_path / "lock"):
            pass
    finally:
        end(process)


def test_a_lock_that_was_deleted_while_waiting_is_not_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    process = holder(path)
    try:

        def replace() -> None:
            path.unlink()
            process.kill()

        threading.Timer(0.2, replace).start()
        with pytest.raises(FileNotFoundError), locked(path, create=False):
            raise AssertionError("it holds a file that is gone")
    finally:
        end(process)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").touch()
    (tmp_path / "lock").symlink_to("target")
    with pytest.raises(OSError, match="symbolic"), locked(tmp_path / "lock"):
        pass


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    for _ in range(20):
        with locked(tmp_path / "lock"):
            assert open_below(tmp_path)
    assert not open_below(tmp_path)
