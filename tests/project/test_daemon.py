"""`make docker` starts a daemon where there is none, once, and explains itself where it cannot."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "daemon.py"


@pytest.fixture(scope="module")
def daemon() -> ModuleType:
    spec = importlib.util.spec_from_file_location("daemon", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.docker
def test_a_daemon_that_answers_is_left_alone() -> None:
    result = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("Docker ")
    assert len(result.stdout.splitlines()) == 1


def test_a_daemon_elsewhere_cannot_be_started_from_here(tmp_path: Path) -> None:
    environment = os.environ | {"DOCKER_HOST": f"unix://{tmp_path}/nobody.sock"}
    result = subprocess.run([sys.executable, SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "only a local one can be started here" in result.stderr
    assert "apt-get install docker.io" in result.stderr


def test_without_root_or_debian_it_says_what_to_install(
    daemon: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(daemon, "running_version", lambda: None)
    monkeypatch.setattr(daemon, "is_debian", lambda release: False)
    with pytest.raises(SystemExit, match=r"No Docker daemon answers\. To get one:"):
        daemon.main()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("ID=debian\n", True),
        ('ID=ubuntu\nID_LIKE="debian"\n', True),
        ('ID=mint\nID_LIKE="ubuntu debian"\n', True),
        ("ID=fedora\n", False),
        ("", False),
    ],
)
def test_debian_and_its_children_are_known(
    daemon: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: str, expected: bool
) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    (tmp_path / "os-release").write_text(lines)
    assert daemon.is_debian(daemon.os_release(tmp_path / "os-release")) is expected
    assert daemon.os_release(tmp_path / "missing") == {}


def test_only_a_dead_daemons_pid_file_is_removed(daemon: ModuleType, tmp_path: Path) -> None:
    pid_file = tmp_path / "daemon.pid"
    daemon.remove_if_stale(pid_file, "dockerd")
    own_name = Path("/proc/self/comm").read_text().strip()
    pid_file.write_text(f"{os.getpid()}\n")
    daemon.remove_if_stale(pid_file, own_name)
    assert pid_file.exists()
    daemon.remove_if_stale(pid_file, "dockerd")
    assert not pid_file.exists()
    pid_file.write_text("")
    daemon.remove_if_stale(pid_file, "dockerd")
    assert not pid_file.exists()


NEW_MACHINE = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
mount --bind "$1" /var/lib/docker
mkdir -p /run/lock /run/docker/containerd
echo 1 > /run/docker.pid
echo 1 > /run/docker/containerd/containerd.pid
"$2" "$3" > "$1/first" & first=$!
"$2" "$3" > "$1/second" & second=$!
wait $first; wait $second
"$2" "$3" > "$1/third"
cat /proc/[0-9]*/comm > "$1/processes"
"""


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0
    or not all(map(shutil.which, ("unshare", "dockerd", "iptables")))
    or not Path("/var/lib/docker").is_dir(),
    reason="starting a second daemon needs root and an installed dockerd",
)
def test_a_daemon_is_started_once_even_beside_the_pid_files_of_a_dead_one(tmp_path: Path) -> None:
    """In namespaces of its own for mounts, processes and the network, so that the machine's daemon does not notice."""
    environment = {name: value for name, value in os.environ.items() if name != "DOCKER_HOST"}
    subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
         "sh", "-c", NEW_MACHINE, "sh", str(tmp_path), sys.executable, str(SCRIPT)],
        env=environment, check=True, timeout=120,
    )  # fmt: skip
    told = (tmp_path / "first").read_text() + (tmp_path / "second").read_text()
    assert told.count("Starting dockerd") == 1
    assert told.count("the dockerd that wrote it is gone") == 1
    assert told.count(" answers\n") == 2
    assert (tmp_path / "third").read_text().splitlines() == [told.splitlines()[-1]]
    assert (tmp_path / "processes").read_text().splitlines().count("dockerd") == 1
