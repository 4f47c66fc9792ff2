"""Containers on a Docker daemon."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import docker.errors

from ...channel.multiplexer import Channel
from ...errors import EngineError, OCIRuntimeError, SpecMismatchError
from ...spec import DEFAULT_UID, ContainerSpec, RuntimeConfig
from ..base import Connection, ContainerInfo, Progress, UnknownContainerError
from .client import Daemon, connect_daemon, daemon_socket
from .containers import inspected_info, is_left_over, list_containers, listed_info
from .control_socket import NotReachableError, NotYetError, connect_control_socket
from .ending import kill_container, remove_container
from .errors import docker_errors, is_conflict
from .exec_stream import Demultiplexer, open_exec_stream
from .freezing import freeze, thaw
from .hardening import OWNER_LABEL, SOCKET_DIRECTORY, RunnerVolume, container_config
from .images import ensure_image, ensure_pulled
from .persistent import home_and_workspace
from .runner_volume import ensure_runner_volume, fill_runner_volume
from .volumes import prepare_workspace, refuse_what_belongs_to_others, resolve_mounts

__all__ = ("DockerEngine",)

T = TypeVar("T")

_WORKERS = 8
"""Calls to the daemon at once: it serialises most of its work, and more threads only wait."""

_RUNNER_START = 3.0
"""Seconds to wait for a runner's socket, which is there some 10 ms after the container's start, before going around it."""

_REMEMBERED = 4096
"""Containers whose first process is remembered."""

_REMOVAL = 20.0
"""Seconds that the engine may take to give the name of a container that has ended free again."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

_CONTAINER_ID = re.compile(r"[0-9a-f]{64}")


class DockerEngine:
    """A Docker daemon that runs sandboxes; building it does no I/O.

    Args:
        base_url: Where the daemon is; `None`: as the environment says (`DOCKER_HOST`, the current context, the usual socket).
        timeout: Seconds that any single answer of the daemon may take.
        transport: How to reach runners. `"auto"` tries the container's own socket, which needs a local daemon and root, and
            takes `docker exec` where that does not work; the others insist, for tests and measurements.
    """

    provider = "pydantic-ai-sandbox-docker"

    def __init__(
        self,
        base_url: str | None = None,
        *,
        timeout: int = 60,
        transport: Literal["auto", "socket", "exec"] = "auto",
    ) -> None:
        self._base_url = base_url
        self._timeout = timeout
        self._transport = transport
        self._lock = threading.Lock()
        self._api: Daemon | None = None
        self._workers: ThreadPoolExecutor | None = None
        self._runner_volumes: dict[str, RunnerVolume] = {}
        self._architectures: dict[str, str] = {}
        self._pids: dict[str, int] = {}
        self._oci_runtimes: dict[str, str] = {}

    @staticmethod
    def default() -> DockerEngine:
        """The engine that sandboxes use unless they are given one; one per process, so that they share its threads."""
        return _default_engine(os.getpid())

    def submit(self, call: Callable[[], T]) -> Future[T]:
        with self._lock:
            if self._workers is None:
                self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="docker-engine")
            return self._workers.submit(call)

    def close(self) -> None:
        """Let go of the daemon and the worker threads; the containers go on."""
        with self._lock:
            workers, self._workers = self._workers, None
            api, self._api = self._api, None
        if workers is not None:
            workers.shutdown(wait=False, cancel_futures=True)
        if api is not None:
            api.close()

    def api(self) -> Daemon:
        """The low-level client, connected on first use."""
        with self._lock:
            if self._api is None:
                api = connect_daemon(self._base_url, self._timeout)
                with docker_errors("tidy up"):
                    _tidy(api, {})
                self._api = api
            return self._api

    # --- images

    def resolve_image(self, runtime: RuntimeConfig | str, progress: Progress | None) -> str:
        with docker_errors("find an image"):
            if isinstance(runtime, str):
                return ensure_pulled(self.api(), runtime, progress=progress)
            return ensure_image(self.api(), runtime, progress=progress)

    def prepare_workspace(self, workspace: Path, *, is_session: bool = False) -> int:
        # Whose directory it is, and whether it exists, is for a remote daemon's host to know.
        return prepare_workspace(workspace, is_session=is_session) if self._daemon_is_local() else DEFAULT_UID

    def _daemon_is_local(self) -> bool:
        return self.api().base_url.startswith(("http+docker://localhost", "http+docker://localnpipe"))

    # --- life of a container

    def create(self, spec: ContainerSpec, name: str, labels: Mapping[str, str]) -> tuple[ContainerInfo, bool]:
        if self._daemon_is_local():
            spec = resolve_mounts(spec)
            self._check_mounts(spec, is_session=bool(labels))
        give_up = time.monotonic() + _REMOVAL
        with docker_errors("create a container"):
            while True:
                try:
                    id = self._create(spec, name, labels)
                except docker.errors.APIError as error:
                    if not is_conflict(error):
                        _raise_for_oci_runtime(error, spec.oci_runtime)
                        raise
                    if (found := self._adopt(spec, name, labels)) is not None:
                        return found, False
                    if time.monotonic() > give_up:
                        raise
                    time.sleep(0.02)
                else:
                    break
            if spec.oci_runtime is not None:
                self._oci_runtimes[id] = spec.oci_runtime
            if spec.persistent:
                self.api().put_archive(id, "/", home_and_workspace(spec))
        return ContainerInfo(id=id, name=name, spec=spec, running=False, status="created", labels=dict(labels)), True

    def _check_mounts(self, spec: ContainerSpec, *, is_session: bool) -> None:
        # What a session mounts comes from its manager; nobody else's need to look at all the others costs them anything.
        if not spec.volumes and (spec.workspace is None or is_session):
            return
        with docker_errors("ask where it keeps its data"):
            data_root = self.api().info().get("DockerRootDir")
        engine_paths = [Path(data_root)] if data_root else []
        if (sock := daemon_socket(self._base_url)) is not None:
            engine_paths.append(sock)
        others = [spec, *(info.spec for info in self.find({}))]
        refuse_what_belongs_to_others(spec, is_session=is_session, engine_paths=engine_paths, others=others)

    def _create(self, spec: ContainerSpec, name: str, labels: Mapping[str, str]) -> str:
        volume = self._runner_volume(spec.image)
        try:
            return self._create_with(volume, spec, name, labels)
        except docker.errors.APIError as error:
            if volume.hosts_file not in str(error.explanation):
                raise
        # The volume is there but not filled: another process is doing that, or died doing it.
        fill_runner_volume(self.api(), volume.name, spec.image, self._architecture(spec.image))
        return self._create_with(volume, spec, name, labels)

    def _create_with(self, volume: RunnerVolume, spec: ContainerSpec, name: str, labels: Mapping[str, str]) -> str:
        # Looked up every time: another image may have the name by now.
        volumes: dict[str, Any] = self._inspected_image(spec.image)["Config"].get("Volumes") or {}
        config = container_config(spec, volume, labels, image_volumes=volumes)
        return self.api().create_container_from_config(config, name)["Id"]

    def _adopt(self, spec: ContainerSpec, name: str, labels: Mapping[str, str]) -> ContainerInfo | None:
        """The container that has the name; `None` if it is just going away."""
        try:
            info = inspected_info(self.api().inspect_container(name))
        except docker.errors.NotFound:
            return None
        if info.labels != labels:
            raise UnknownContainerError(f"the container {name!r} belongs to somebody else")
        if not info.running and info.status != "created" and not info.spec.persistent:
            return None
        if info.spec.digest() != spec.digest():
            raise SpecMismatchError(
                f"a sandbox named {name!r} exists with other settings; destroy it, or choose another name"
            )
        return info

    def find(self, labels: Mapping[str, str]) -> list[ContainerInfo]:
        with docker_errors("list containers"):
            found: list[ContainerInfo] = []
            for container in _owned(self.api(), labels):
                with contextlib.suppress(UnknownContainerError):
                    info = listed_info(container)
                    # The daemon's own filter also finds labels that come from an image.
                    if labels.items() <= info.labels.items():
                        found.append(info)
        return found

    def tidy(self, labels: Mapping[str, str]) -> int:
        with docker_errors("remove what was left over"):
            return _tidy(self.api(), labels)

    def start(self, id: str) -> None:
        with docker_errors("start a container"):
            try:
                self.api().start(id)
            except docker.errors.NotFound:
                raise
            except docker.errors.APIError as error:
                # It may be gone already: Docker removes what does not start.
                _raise_for_oci_runtime(error, self._oci_runtimes.pop(id, None))
                raise
        self._oci_runtimes.pop(id, None)

    def inspect(self, id: str) -> ContainerInfo:
        # Refs come out of message histories: a name, a prefix or a path is not to be looked up.
        if not _CONTAINER_ID.fullmatch(id):
            raise UnknownContainerError(f"{id[:80]!r} is not a container's id")
        with docker_errors("inspect a container"):
            return inspected_info(self.api().inspect_container(id))

    def stop(self, id: str) -> None:
        with docker_errors("stop a container"):
            kill_container(self.api(), id)

    def remove(self, id: str) -> None:
        with docker_errors("remove a container"):
            remove_container(self.api(), id)

    def pause(self, id: str) -> None:
        with docker_errors("pause a container"):
            freeze(self.api(), id)

    def resume(self, id: str) -> None:
        with docker_errors("resume a container"):
            thaw(self.api(), id)

    def logs(self, id: str, lines: int) -> str:
        with docker_errors("read a container's log"):
            return self.api().logs(id, tail=lines, stdout=True, stderr=True).decode("utf-8", "replace")

    # --- reaching the runner

    def connect(self, id: str) -> Connection:
        if self._transport != "exec":
            try:
                return self._connect_socket(id)
            except (NotReachableError, NotYetError) as error:
                if self._transport == "socket":
                    raise EngineError(f"cannot reach the runner's socket: {error}") from error
        return self._connect_exec(id)

    def _connect_socket(self, id: str) -> Connection:
        if not self._daemon_is_local():
            raise NotReachableError("the daemon runs elsewhere")
        # Asking the daemon takes longer than all the rest, and what it said last time is checked in any case.
        if (pid := self._pids.get(id)) is not None:
            with contextlib.suppress(NotReachableError, NotYetError):
                return self._dial(id, pid, timeout=0.0)
        with docker_errors("inspect a container"):
            found: dict[str, Any] = self.api().inspect_container(id)
        self._require_running(found)
        pid = found["State"]["Pid"]
        connection = self._dial(id, pid, timeout=_RUNNER_START)
        if len(self._pids) >= _REMEMBERED:
            self._pids.clear()
        self._pids[id] = pid
        return connection

    def _dial(self, id: str, pid: int, *, timeout: float) -> Connection:
        sock = connect_control_socket(id, pid, SOCKET_DIRECTORY, timeout=timeout)
        sock.setblocking(False)
        return Connection(sock=sock, wrap=_unwrapped, transport="socket")

    def _connect_exec(self, id: str) -> Connection:
        with docker_errors("reach a container's runner"):
            try:
                sock = open_exec_stream(self.api(), id)
            except docker.errors.APIError:
                # What Docker answers for one that is ending depends on how far that has come.
                self._require_running(self.api().inspect_container(id))
                raise
        return Connection(sock=sock, wrap=_demultiplexed, transport="exec")

    @staticmethod
    def _require_running(found: dict[str, Any]) -> None:
        state = found["State"]
        if not state["Running"]:
            raise UnknownContainerError(f"the container does not run any more ({state['Status']})")

    # --- the runner's volume

    def _runner_volume(self, image: str) -> RunnerVolume:
        architecture = self._architecture(image)
        volume = self._runner_volumes.get(architecture)
        if volume is None:
            with docker_errors("prepare the sandbox runner"):
                volume = ensure_runner_volume(self.api(), image, architecture)
            self._runner_volumes[architecture] = volume
        return volume

    def _architecture(self, image: str) -> str:
        architecture = self._architectures.get(image)
        if architecture is None:
            name: str = self._inspected_image(image)["Architecture"]
            architecture = self._architectures[image] = _ARCHITECTURES.get(name, name)
        return architecture

    def _inspected_image(self, image: str) -> dict[str, Any]:
        with docker_errors("inspect an image"):
            return self.api().inspect_image(image)


def _raise_for_oci_runtime(error: docker.errors.APIError, oci_runtime: str | None) -> None:
    """Blame a failure to make or start a container on its OCI runtime, if it has one that is not the daemon's own.

    Raises:
        OCIRuntimeError: It has.
    """
    if oci_runtime is None:
        return
    raise OCIRuntimeError(
        f"containers do not start with the OCI runtime {oci_runtime!r}: {str(error.explanation or error)[:1000]}. Install it and "
        f"name it in the daemon's configuration (`runtimes` in daemon.json), or leave oci_runtime out",
        oci_runtime=oci_runtime,
    ) from error


def _owned(api: Daemon, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    return list_containers(api, [f"{OWNER_LABEL}{name}={value}" for name, value in labels.items()])


def _tidy(api: Daemon, labels: Mapping[str, str]) -> int:
    left_over = [container["Id"] for container in _owned(api, labels) if is_left_over(container)]
    for id in left_over:
        remove_container(api, id)
    return len(left_over)


def _unwrapped(channel: Channel) -> Channel:
    return channel


def _demultiplexed(channel: Channel) -> Demultiplexer:
    return Demultiplexer(channel)


@cache
def _default_engine(pid: int) -> DockerEngine:
    # By process: a forked worker must not share its parent's connections and threads.
    return DockerEngine()
