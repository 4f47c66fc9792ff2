"""The two sides of every attack: containers as they come, and ours."""

from __future__ import annotations

import io
import math
import os
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import docker
import docker.errors
from docker.models.containers import Container

from pydantic_ai_sandbox import DockerEngine, DockerSandbox, Sandbox, SessionManager
from pydantic_ai_sandbox.engines.docker.hardening import LABEL
from pydantic_ai_sandbox.runtimes import builtin
from tests.attacks.probing import Tried, program, read

__all__ = ("IDLE", "Lab", "Plain", "Plains")

IDLE = 120
"""Seconds after which whatever a killed test run left behind ends itself."""

IMAGES = "pydantic-ai-sandbox/test-attack"


class Plain:
    """A container that is used as everybody uses one: `docker run`, then `docker exec`."""

    def __init__(self, container: Container) -> None:
        self.container = container

    @property
    def id(self) -> str:
        return str(self.container.id)

    def output(self, command: Sequence[str], *, user: str = "") -> tuple[int, bytes]:
        """Exit code and output of a command."""
        found = self.container.exec_run(list(command), user=user)
        assert isinstance(found.output, bytes)
        return int(found.exit_code or 0), found.output

    def exec(self, command: Sequence[str], *, user: str = "") -> tuple[int, str]:
        """The same as text."""
        code, output = self.output(command, user=user)
        return code, output.decode("utf-8", "replace")

    def sh(self, script: str, *, user: str = "") -> str:
        return self.exec(["sh", "-c", script], user=user)[1]

    def start(self, command: Sequence[str]) -> None:
        """Start a command and leave it running."""
        self.container.exec_run(list(command), detach=True)

    def attempt(self, body: str, *, user: str = "") -> Tried:
        return read(self.exec(["python3", "-c", program(body)], user=user)[1])

    def runs(self) -> bool:
        """Whether it is still there, after a moment in which it may end."""
        give_up = time.monotonic() + 2
        while time.monotonic() < give_up:
            try:
                self.container.reload()
            except docker.errors.NotFound:
                return False
            if self.container.status != "running":
                return False
            time.sleep(0.05)
        return True

    def processes(self) -> list[str]:
        """Command lines of what runs in it."""
        return [" ".join(line[7:]) for line in self.container.top()["Processes"]]

    def shows(self, holds: Callable[[list[str]], bool]) -> bool:
        """Whether that holds of its processes, or will: on a busy machine none begins or ends at once."""
        give_up = time.monotonic() + 20
        while not (held := holds(self.processes())) and time.monotonic() < give_up:
            time.sleep(0.05)
        return held


class Plains:
    """Makes containers that nothing hardened."""

    def __init__(self, image: str) -> None:
        self.client = docker.from_env()
        self.image = image
        self._made: list[Container] = []
        self._lasting: dict[str, Plain] = {}
        self._refreshed = -math.inf

    def make(self, command: Sequence[str] = ("sleep", str(IDLE)), *, image: str | None = None, **options: Any) -> Plain:
        """A container with Docker's defaults but for `options`."""
        # Our image names a user; most do not.
        ends = {"labels": {f"{LABEL}.managed": "attack"}, "auto_remove": True}
        settings: dict[str, Any] = {"user": "0", **ends, **options}
        container: Container = self.client.containers.run(image or self.image, list(command), detach=True, **settings)
        self._made.append(container)
        return Plain(container)

    @property
    def shared(self) -> Plain:
        return self._lasting["default"]

    @property
    def unconfined(self) -> Plain:
        return self._lasting["unconfined"]

    def refresh(self) -> None:
        """Have new ones of those that attacks share, if they could end before the next attack does."""
        if time.monotonic() - self._refreshed > IDLE / 2:
            self._lasting = {"default": self.make(), "unconfined": self.make(security_opt=["seccomp=unconfined"])}
            self._refreshed = time.monotonic()

    def remove(self, made_before: int = 0) -> None:
        """Remove those that were made since there were that many."""
        while len(self._made) > made_before:
            container = self._made.pop()
            try:
                container.remove(force=True, v=True)
            except docker.errors.APIError:
                # It ended, or is just being removed because it did.
                continue

    def __len__(self) -> int:
        return len(self._made)


class Lab:
    """What an attack needs: a place on the host, a naive container, a sandbox, and more of each for those that destroy them."""

    def __init__(self, place: Path, plains: Plains, sandbox: DockerSandbox, stack: AsyncExitStack) -> None:
        self.place = place
        self.sandbox = sandbox
        self.plains = plains
        self._stack = stack

    # --- as it comes

    @property
    def plain(self) -> Plain:
        return self.plains.shared

    @property
    def unconfined(self) -> Plain:
        return self.plains.unconfined

    def another_plain(self, command: Sequence[str] = ("sleep", str(IDLE)), **options: Any) -> Plain:
        """A naive container for this attack alone."""
        return self.plains.make(command, **options)

    # --- ours

    @property
    def engine(self) -> DockerEngine:
        assert isinstance(self.sandbox.engine, DockerEngine)
        return self.sandbox.engine

    async def another_sandbox(self, **options: Any) -> DockerSandbox:
        """A sandbox for this attack alone, started."""
        settings: dict[str, Any] = {"engine": self.engine, "idle_timeout": IDLE, **options}
        sandbox = DockerSandbox(**settings)
        self._stack.push_async_callback(sandbox.aclose)
        await sandbox.start()
        return sandbox

    def manager(self, **options: Any) -> SessionManager:
        """A manager of users, whose sandboxes and files go with the attack."""
        settings: dict[str, Any] = {"workspace_root": self.place / "users", "engine": self.engine, "idle_timeout": IDLE}
        manager = SessionManager(**{**settings, **options})
        self._stack.push_async_callback(_forget, manager)
        return manager

    async def attempt(self, body: str, *, sandbox: Sandbox | None = None) -> Tried:
        result = await (sandbox or self.sandbox).run(["python3", "-c", program(body)], timeout=30)
        return read(result.stdout + result.stderr)

    # --- things to attack with

    def folder(self, name: str, *, uid: int = 10001) -> Path:
        """A directory of the host that belongs to the sandbox's user."""
        path = self.place / name
        path.mkdir()
        os.chown(path, uid, uid)
        return path

    def image(self, name: str, *lines: str) -> str:
        """An image like the naive one, with what a hostile author adds."""
        tag = f"{IMAGES}-{name}:1"
        text = "\n".join([f"FROM {self.plains.image}", *lines]) + "\n"
        image, _ = self.plains.client.images.build(fileobj=io.BytesIO(text.encode()), tag=tag, rm=True)
        assert image.id is not None
        self.later(partial(self._remove_image, image.id))
        self.later(partial(self._remove_image, tag))
        return tag

    def _remove_image(self, name: str) -> None:
        give_up = time.monotonic() + 10
        while time.monotonic() < give_up:
            try:
                self.plains.client.images.remove(name, force=True)
            except docker.errors.ImageNotFound:
                # Both sides may have made it, and the other's may have taken the name.
                return
            except docker.errors.APIError as error:
                if "container" not in str(error.explanation):
                    # Another that was left is based on it.
                    return
                # One that is just going away uses it.
                time.sleep(0.05)
            else:
                return

    def later(self, undo: Callable[[], object]) -> None:
        """Do something at the end of the attack."""
        self._stack.callback(undo)

    @contextmanager
    def listening(
        self, address: str, port: int = 0, kind: socket.SocketKind = socket.SOCK_STREAM
    ) -> Generator[socket.socket]:
        """A service of the host."""
        with socket.socket(socket.AF_INET, kind) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((address, port))
            if kind is socket.SOCK_STREAM:
                server.listen()
            yield server

    @staticmethod
    def host(command: Sequence[str]) -> str:
        """What a program of the host says."""
        return subprocess.run(list(command), capture_output=True, text=True, check=True, timeout=30).stdout


async def _forget(manager: SessionManager) -> None:
    await manager.aclose()
    for info in manager._engine.find(manager._population.namespace_labels):
        manager._engine.remove(info.id)
    storage = manager._directories.storage
    for path in manager._directories.root.iterdir():
        if path.is_dir() and not path.is_symlink() and not path.name.startswith("."):
            storage.delete(path)


def naive_image(engine: DockerEngine) -> str:
    """The image of the smallest runtime, which has Python."""
    return engine.resolve_image(builtin("python-minimal"), None)
