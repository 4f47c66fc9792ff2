"""A Docker daemon of the test's own, in its own network namespace, that may be stopped, frozen and killed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from pydantic_ai_sandbox.engines.docker.client import connect_daemon
from pydantic_ai_sandbox.errors import EngineUnavailableError

ROOT = Path(__file__).parents[2]

PR_SET_PDEATHSIG = 1


class OwnDaemon:
    """A second daemon beside the machine's; needs root, `dockerd` and `unshare`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.url = f"unix://{folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    def start(self, *options: str, fresh: bool = True) -> None:
        """Start it and wait until it answers.

        Args:
            options: More of its options, such as `"--live-restore"`.
            fresh: Kill what a killed one left first; otherwise it is found again, as on a machine that goes on running.
        """
        if fresh:
            self._kill_leftovers()
        # Killed processes whose parent does not reap them still look alive to a daemon that reads their pid files.
        for name in ("docker.pid", "exec/containerd/containerd.pid"):
            (self._folder / name).unlink(missing_ok=True)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    # Its own network namespace, because "--bridge=none" would take the machine's docker0 away.
                    "unshare", "--net", "dockerd", "--host", self.url, "--data-root", self._folder / "data",
                    "--exec-root", self._folder / "exec", "--pidfile", self._folder / "docker.pid",
                    "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false",
                    *options,
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        give_up = time.monotonic() + 60
        while True:
            try:
                connect_daemon(self.url, 5).close()
            except EngineUnavailableError:
                if time.monotonic() > give_up:
                    pytest.fail("the daemon did not start: " + (self._folder / "log").read_text()[-2000:])
                time.sleep(0.1)
            else:
                return

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it and wait for its end."""
        self.send(number)
        assert self._process is not None
        self._process.wait(60)

    def load(self, api: Any, image: str) -> None:
        """Take an image over from another daemon."""
        own = connect_daemon(self.url, 60)
        own.load_image(b"".join(api.get_image(image)))
        own.close()

    def _kill_leftovers(self) -> None:
        """A daemon that was killed left its containerd, its shims, and what was to become containers."""
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                mine = int(process.name) in (os.getpid(), self._guard and self._guard.pid)
                if not mine and self._is_leftover(process):
                    os.kill(int(process.name), signal.SIGKILL)

    def _is_leftover(self, process: Path) -> bool:
        """Whether it carries the folder in its command line, or its root directory lies in there."""
        mounts = (line.split() for line in (process / "mountinfo").read_text().splitlines())
        root = next((" ".join(mount) for mount in mounts if mount[4] == "/"), "")
        return str(self._folder) in (process / "cmdline").read_text(errors="replace") + root

    def guard(self) -> None:
        """Have a process of its own clean up if this one is killed; it ends with `end`."""
        self._guard = subprocess.Popen([sys.executable, "-m", __name__, self._folder], cwd=ROOT)

    def end(self) -> None:
        """Stop it with everything that it started."""
        if self._process is not None and self._process.poll() is None:
            self.send(signal.SIGCONT)
            self.stop()
        self.clean()
        if self._guard is not None:
            self._guard.kill()
            self._guard.wait()

    def clean(self) -> None:
        """Remove what is left of it, whoever started it."""
        self._kill_leftovers()
        for mount in reversed(_mounts_below(self._folder)):
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
        shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def own_daemon() -> Generator[OwnDaemon]:
    """A daemon that runs for a while."""
    if os.geteuid() != 0 or not shutil.which("dockerd") or not shutil.which("unshare"):
        pytest.skip("a second daemon needs root, dockerd and unshare")
    # Not below pytest's own temporary directory: a socket's path must be short.
    daemon = OwnDaemon(Path(tempfile.mkdtemp(prefix="pydantic-ai-sandbox-daemon-")))
    try:
        daemon.guard()
        daemon.start()
        yield daemon
    finally:
        daemon.end()


def _mounts_below(folder: Path) -> list[str]:
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return sorted(mount for mount in mounts if Path(mount).is_relative_to(folder))


def _guard(folder: Path) -> None:
    """Wait for the death of the process that started this one, and clean up after it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.sigwait({signal.SIGTERM})
    OwnDaemon(folder).clean()


if __name__ == "__main__":
    _guard(Path(sys.argv[1]))
