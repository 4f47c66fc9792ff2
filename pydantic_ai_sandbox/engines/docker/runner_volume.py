"""The volume that carries the runner's binary into containers: filled once per version and architecture."""

from __future__ import annotations

import io
import tarfile
import time

import docker.errors

from ...runtimes import runner_binary, runner_version
from .client import Daemon
from .ending import remove_container
from .errors import is_conflict
from .hardening import LABEL, RunnerVolume

__all__ = ("ensure_runner_volume", "fill_runner_volume")

_HOSTS = b"127.0.0.1\tlocalhost sandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n"

_MOUNT = "/volume"
"""Where the volume is while it is being filled."""

_LAST_FILE = "hosts"

_FILL_DEADLINE = 60.0
"""Seconds that another process may take to fill the volume before we think it died doing so."""


def ensure_runner_volume(api: Daemon, image: str, architecture: str) -> RunnerVolume:
    """The volume for containers of that architecture (`"amd64"`, `"arm64"`), created and filled if it is missing.

    Args:
        api: The daemon.
        image: Any image it has; a container is made from it, though never started, to reach into the volume.
        architecture: The image's architecture.
    """
    name = f"{LABEL}-runner-{runner_version()}-{architecture}"
    try:
        volume = api.inspect_volume(name)
    except docker.errors.NotFound:
        fill_runner_volume(api, name, image, architecture)
        volume = api.inspect_volume(name)
    return RunnerVolume(name=name, hosts_file=f"{volume['Mountpoint']}/{_LAST_FILE}")


def fill_runner_volume(api: Daemon, name: str, image: str, architecture: str) -> None:
    """Put the runner into the volume of that name, unless it is there.

    The container made for it is the lock between processes: its name can exist only once.
    """
    container = _lock(api, f"{name}-fill", name, image)
    try:
        if not _is_filled(api, container):
            api.put_archive(container, _MOUNT, _archive(architecture))
    finally:
        remove_container(api, container)


def _lock(api: Daemon, filler: str, volume: str, image: str) -> str:
    """Create the container of that name, waiting for other processes to be done with theirs."""
    begun = time.monotonic()
    while True:
        try:
            return _create_filler(api, filler, volume, image)
        except docker.errors.APIError as error:
            if not is_conflict(error) or time.monotonic() > begun + 2 * _FILL_DEADLINE:
                raise
        if time.monotonic() > begun + _FILL_DEADLINE:
            # Its maker must have died.
            remove_container(api, filler)
        time.sleep(0.05)


def _is_filled(api: Daemon, container: str) -> bool:
    try:
        content, _ = api.get_archive(container, f"{_MOUNT}/{_LAST_FILE}")
    except docker.errors.NotFound:
        return False
    for _ in content:
        pass
    return True


def _create_filler(api: Daemon, filler: str, volume: str, image: str) -> str:
    config = {
        "Image": image,
        # Never started, but Docker wants a command.
        "Cmd": ["/runner"],
        "Labels": {f"{LABEL}.managed": "1"},
        "NetworkDisabled": True,
        "HostConfig": {
            "Mounts": [
                {
                    "Type": "volume",
                    "Source": volume,
                    "Target": _MOUNT,
                    "VolumeOptions": {"NoCopy": True, "Labels": {f"{LABEL}.managed": "1"}},
                }
            ]
        },
    }
    container: str = api.create_container_from_config(config, filler)["Id"]
    return container


def _archive(architecture: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        _add(archive, "runner", runner_binary(architecture).read_bytes(), 0o555)
        # Last: no container can be created before this file is there, and so none before the runner is whole.
        _add(archive, _LAST_FILE, _HOSTS, 0o444)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
