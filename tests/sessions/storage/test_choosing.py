"""What limits users' directories is found out by trying, and what they were made with is never given up silently."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pydantic_ai_sandbox.errors import SandboxError
from pydantic_ai_sandbox.sessions.storage import choose_storage
from tests.sessions.storage.keeping import MIB, QUOTA, UID, loops, mounts, needs_loopback, write

CHECKOUT = Path(__file__).parents[3]


def test_without_a_quota_directories_are_plain(root: Path) -> None:
    assert choose_storage(root, None, require_hard=False).level == "none"
    assert choose_storage(root, None, require_hard=True).level == "none"


@needs_loopback
def test_the_trial_leaves_nothing(root: Path) -> None:
    assert choose_storage(root, QUOTA, require_hard=True).level == "loopback"
    assert mounts(root) == loops(root) == []
    assert list((root / ".manager").iterdir()) == []


@needs_loopback
@pytest.mark.parametrize("options", ["loop,nonsense=1", "loop,ro"])
def test_a_host_that_cannot_is_found_out_and_the_trial_leaves_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("pydantic_ai_sandbox.sessions.storage.mounting._OPTIONS", options)
        assert choose_storage(root, QUOTA, require_hard=False).level == "soft"
        with pytest.raises(SandboxError, match="no quota that the kernel enforces can be had: "):
            choose_storage(root, QUOTA, require_hard=True)
        assert mounts(root) == loops(root) == []
        assert list((root / ".manager").iterdir()) == []
    assert choose_storage(root, QUOTA, require_hard=True).level == "loopback", "what did not work may work later"


@needs_loopback
def test_one_is_tried_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose_storage(root, QUOTA, require_hard=True)
    monkeypatch.setattr("pydantic_ai_sandbox.sessions.storage.mounting._OPTIONS", "loop,nonsense=1")
    assert choose_storage(root, QUOTA, require_hard=True).level == "loopback"


@needs_loopback
def test_the_trial_of_whoever_was_killed_is_cleared_away(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import os, sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from pydantic_ai_sandbox.sessions.storage import choosing\n"
        "choosing._not_full = lambda path: os.kill(os.getpid(), 9)\n"
        "choosing.choose_storage(Path(sys.argv[1]), 1 << 24, require_hard=True)"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(root), str(CHECKOUT)], check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    assert len(mounts(root)) == 1
    # It is nobody's, so it is in nobody's way.
    assert choose_storage(root, None, require_hard=False).level == "none"
    monkeypatch.setattr("pydantic_ai_sandbox.sessions.storage.working._STALE", -1.0)
    assert choose_storage(root, QUOTA, require_hard=True).level == "loopback"
    assert mounts(root) == []
    assert list((root / ".manager").iterdir()) == []


@needs_loopback
def test_a_process_whose_mounts_the_engine_does_not_see_uses_none(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", "echo && read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as engine:
        assert engine.stdout is not None
        engine.stdout.readline()
        monkeypatch.setattr("pydantic_ai_sandbox.sessions.storage.mounting._FIRST_PROCESS", Path(f"/proc/{engine.pid}"))
        assert choose_storage(root, QUOTA, require_hard=False).level == "soft"
        with pytest.raises(SandboxError, match="that the engine does not see"):
            choose_storage(root, QUOTA, require_hard=True)
        engine.communicate("end\n", timeout=60)


@pytest.mark.parametrize(
    ("patched", "value", "reason"),
    [
        ("os.geteuid", lambda: 10001, "only root can mount"),
        ("pydantic_ai_sandbox.sessions.storage.mounting._SEARCH", "/nowhere", "mkfs.ext4, .* must be installed"),
    ],
)
def test_what_is_missing_is_named_where_a_hard_quota_is_required(
    root: Path, monkeypatch: pytest.MonkeyPatch, patched: str, value: object, reason: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(patched, value)
    assert choose_storage(root, QUOTA, require_hard=False).level == "soft"
    with pytest.raises(SandboxError, match=reason):
        choose_storage(root, QUOTA, require_hard=True)


def test_a_quota_too_small_for_a_file_system_is_a_soft_one(root: Path) -> None:
    assert choose_storage(root, MIB, require_hard=False).level == "soft"
    with pytest.raises(SandboxError, match="at least 4194304 bytes"):
        choose_storage(root, MIB, require_hard=True)


@needs_loopback
def test_file_systems_of_users_are_never_taken_for_plain_directories(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose_storage(root, QUOTA, require_hard=True).create(root / "alice", UID)
    write(root / "alice", f="kept")
    with pytest.raises(SandboxError, match="file systems of their own"):
        choose_storage(root, None, require_hard=False)
    monkeypatch.setattr(os, "geteuid", lambda: 10001)
    with pytest.raises(SandboxError, match="only root can mount"):
        choose_storage(root, QUOTA, require_hard=False)
