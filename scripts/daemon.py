"""Make sure that a Docker daemon answers: `make docker`.

Where one answers, this says so. Where none does, and this is root on Debian or a child of it, Docker is installed from
the distribution and started. Everywhere else it says what to install, and exits with 1.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from docker.errors import DockerException

from pydantic_ai_sandbox.engines.docker.client import connect_daemon
from pydantic_ai_sandbox.errors import SandboxError

PROGRAMS = {"dockerd": "docker.io", "iptables": "iptables", "debootstrap": "debootstrap"}
"""What must be installed, and the Debian package it comes in; debootstrap makes a base image where none can be pulled."""

PID_FILES = {Path("/run/docker.pid"): "dockerd", Path("/run/docker/containerd/containerd.pid"): "containerd"}
"""Files that keep a daemon from starting while the process they name lives, and the program that process should be."""

LOCK = Path("/run/lock/pydantic-ai-sandbox-docker.lock")
LOG = Path("/var/log/pydantic-ai-sandbox-dockerd.log")

ANSWER_TIMEOUT = 5
"""Seconds in which a daemon that runs answers."""

START_TIMEOUT = 60.0
"""Seconds in which a daemon must answer after its start."""

ADVICE = """\
No Docker daemon answers{where}. To get one:
  Debian, Ubuntu   run `make docker` as root, or: apt-get install docker.io iptables debootstrap
  other Linux      install Docker Engine (https://docs.docker.com/engine/install/) and start it: systemctl start docker
  macOS, Windows   install and start Docker Desktop, OrbStack, colima or Rancher Desktop
If one runs already: its socket must be readable for you (group `docker`), and DOCKER_HOST must name it when it is not at
/var/run/docker.sock."""


class DaemonError(Exception):
    """No daemon answers and none could be started; the message says what to do."""


def main() -> None:
    """Print the version of the daemon that answers, after starting one if need be."""
    try:
        version = running_version() or install_and_start()
    except DaemonError as error:
        sys.exit(str(error))
    print(f"Docker {version} answers", flush=True)


def running_version() -> str | None:
    """Version of the daemon that answers at the place the environment names, or `None`."""
    try:
        return str(connect_daemon(None, ANSWER_TIMEOUT).version()["Version"])
    except (SandboxError, DockerException, OSError):
        return None


def install_and_start() -> str:
    """Install and start a daemon; returns its version.

    Raises:
        DaemonError: That is not possible here, or the daemon did not come up.
    """
    host = os.environ.get("DOCKER_HOST")
    if host:
        raise DaemonError(ADVICE.format(where=f" at DOCKER_HOST={host}, and only a local one can be started here"))
    if os.geteuid() != 0 or not is_debian(os_release()):
        raise DaemonError(ADVICE.format(where=""))
    with _one_at_a_time():
        version = running_version()
        if version:
            return version
        _install_missing()
        return _start()


def os_release(path: Path = Path("/etc/os-release")) -> dict[str, str]:
    """The distribution's own description; empty where there is none."""
    if not path.is_file():
        return {}
    pairs = (line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
    return {name: value.strip("\"'") for name, value in pairs}


def is_debian(release: Mapping[str, str]) -> bool:
    """Whether a distribution is Debian or descends from it."""
    return (
        "debian" in (release.get("ID", ""), *release.get("ID_LIKE", "").split()) and shutil.which("apt-get") is not None
    )


@contextmanager
def _one_at_a_time() -> Generator[None]:
    LOCK.parent.mkdir(parents=True, exist_ok=True)
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install_missing() -> None:
    packages = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if not packages:
        return
    print(f"Installing {', '.join(packages)} (apt-get)", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    wait = ["-o", "DPkg::Lock::Timeout=300"]
    for command in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *wait, *packages]):
        result = subprocess.run(
            ["apt-get", *command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode:
            raise DaemonError(f"apt-get {command[0]} failed:\n{result.stdout}{result.stderr}")


def _start() -> str:
    if Path("/run/systemd/system").is_dir():
        print("Starting Docker (systemctl start docker)", flush=True)
        subprocess.run(["systemctl", "start", "docker"], check=False)
        return _wait_until_it_answers(None)
    for pid_file, program in PID_FILES.items():
        remove_if_stale(pid_file, program)
    print(f"Starting dockerd, log in {LOG}", flush=True)
    with LOG.open("ab") as log:
        # A session of its own and no inherited descriptors: it outlives make, the shell and the terminal.
        process = subprocess.Popen(
            ["dockerd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True
        )
    return _wait_until_it_answers(process)


def remove_if_stale(pid_file: Path, program: str) -> None:
    """Remove the pid file of a daemon that is gone; its number may meanwhile belong to any other process."""
    try:
        pid = pid_file.read_text().strip()
    except FileNotFoundError:
        return
    try:
        name = Path("/proc", pid, "comm").read_text().strip() if pid else ""
    except OSError:
        name = ""
    if name != program:
        print(f"Removing {pid_file}: the {program} that wrote it is gone", flush=True)
        pid_file.unlink(missing_ok=True)


def _wait_until_it_answers(process: subprocess.Popen[bytes] | None) -> str:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        version = running_version()
        if version:
            return version
        if process is not None and process.poll() is not None:
            # Another dockerd may have won a race for the pid file and be about to answer; only then is an exit no failure.
            break
        time.sleep(0.2)
    version = running_version()
    if version:
        return version
    raise DaemonError(f"the Docker daemon did not come up; the end of its log:\n{_log_tail(process)}")


def _log_tail(process: subprocess.Popen[bytes] | None) -> str:
    if process is None:
        return subprocess.run(
            ["journalctl", "--unit=docker", "--lines=20", "--no-pager"], capture_output=True, text=True, check=False
        ).stdout
    return "\n".join(LOG.read_text(errors="replace").splitlines()[-20:])


if __name__ == "__main__":
    main()
