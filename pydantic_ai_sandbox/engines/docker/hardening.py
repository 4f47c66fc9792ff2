"""The walls of a container, as one pure function from a spec to what Docker is asked for."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...spec import MOUNT_ROOT, ContainerSpec
from .seccomp import profile_json

__all__ = (
    "HOME",
    "LABEL",
    "OWNERS_LABEL",
    "OWNER_LABEL",
    "RUNNER",
    "SOCKET_DIRECTORY",
    "RunnerVolume",
    "container_config",
)

LABEL = "pydantic-ai-sandbox"
"""Prefix of our labels; `<LABEL>.managed` marks everything that is ours."""

OWNER_LABEL = f"{LABEL}.owner."
"""Prefix of the labels by which the engine finds whose a container is. An image can have such labels too, and hands them on."""

OWNERS_LABEL = f"{LABEL}.owners"
"""Says, as JSON, whose a container really is: every container of ours is given it, so none has it from its image."""

RUNNER = f"{MOUNT_ROOT}/bin/runner"
"""The runner's binary in every container."""

SOCKET_DIRECTORY = f"{MOUNT_ROOT}/run"
"""Where the runner puts its socket."""

HOME = "/home/sandbox"

_SOCKET_DIRECTORY_SIZE = 64 * 1024
"""Bytes; it holds a socket and nothing else, and the tenant may write to it."""

_BYTES_PER_INODE = 16_384
"""A file system in memory gets one inode for this many bytes, as ext4 does, so that empty files cannot exhaust the kernel."""


@dataclass(frozen=True)
class RunnerVolume:
    """The volume that carries the runner into containers."""

    name: str
    hosts_file: str
    """Path, on the engine's host, of the `/etc/hosts` in it: a container without network gets none from Docker."""


def container_config(
    spec: ContainerSpec,
    runner: RunnerVolume,
    labels: Mapping[str, str] | None = None,
    *,
    image_volumes: Iterable[str] = (),
) -> dict[str, Any]:
    """The body of Docker's "create a container" request; nothing else configures a container of ours.

    Args:
        spec: What it is made of.
        runner: The volume with the runner.
        labels: Whose it is.
        image_volumes: Where the image declares volumes.
    """
    return {
        "Image": spec.image,
        "User": f"{spec.uid}:{spec.uid}",
        "WorkingDir": spec.workdir,
        "Entrypoint": [RUNNER],
        "Cmd": _command(spec),
        "Env": _environment(spec),
        "Hostname": "sandbox",
        "Labels": {
            f"{LABEL}.managed": "1",
            f"{LABEL}.spec": spec.model_dump_json(),
            f"{LABEL}.digest": spec.digest(),
            **({f"{LABEL}.unsafe": spec.unsafe} if spec.unsafe else {}),
            OWNERS_LABEL: json.dumps(dict(labels or {}), sort_keys=True),
            **{f"{OWNER_LABEL}{name}": value for name, value in (labels or {}).items()},
        },
        "NetworkDisabled": spec.network == "none",
        # Our PID 1 ignores every signal it can, since hostile code may send them too.
        "StopSignal": "SIGKILL",
        "Healthcheck": {"Test": ["NONE"]},
        "OpenStdin": False,
        "Tty": False,
        "HostConfig": _host_config(spec, runner, image_volumes),
    }


def _command(spec: ContainerSpec) -> list[str]:
    return [
        "serve",
        "--socket", f"{SOCKET_DIRECTORY}/socket",
        "--workdir", spec.workdir,
        "--idle", str(spec.idle_timeout),
        "--lifetime", str(spec.max_lifetime),
        *(("--quota", str(spec.disk_quota)) if spec.disk_quota else ()),
    ]  # fmt: skip


def _environment(spec: ContainerSpec) -> list[str]:
    defaults = {
        "HOME": HOME,
        "USER": "sandbox",
        "LOGNAME": "sandbox",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        # Python tells a changed source by its size and its time in whole seconds; edits here are faster than that, and it
        # would go on running the old code.
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return [f"{name}={value}" for name, value in {**defaults, **spec.env}.items()]


def _host_config(spec: ContainerSpec, runner: RunnerVolume, image_volumes: Iterable[str]) -> dict[str, Any]:
    limits = spec.limits
    mounts = _mounts(spec, runner)
    return {
        "AutoRemove": not spec.persistent,
        "RestartPolicy": {"Name": "no"},
        "NetworkMode": spec.network,
        # --- privileges
        "Privileged": False,
        "CapDrop": ["ALL"],
        **({"CapAdd": list(spec.extra_caps)} if spec.extra_caps else {}),
        "SecurityOpt": ["no-new-privileges", f"seccomp={profile_json()}"],
        "ReadonlyRootfs": not spec.persistent,
        "IpcMode": "private",
        "CgroupnsMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "UsernsMode": "",
        "Devices": [],
        "PublishAllPorts": False,
        # --- resources
        "Memory": int(limits.memory),
        "MemorySwap": int(limits.memory),
        "NanoCpus": int(limits.cpus * 1e9),
        "PidsLimit": limits.pids,
        "Ulimits": [
            _ulimit("nofile", limits.open_files),
            _ulimit("core", 0),
            _ulimit("fsize", int(limits.file_size)),
        ],
        "LogConfig": {"Type": "local", "Config": {"max-size": "1m", "max-file": "2"}},
        # --- files
        "Mounts": mounts,
        "Tmpfs": {**_in_place_of(image_volumes, spec, mounts), **_tmpfs(spec)},
        **({"Runtime": spec.oci_runtime} if spec.oci_runtime else {}),
    }


def _ulimit(name: str, value: int) -> dict[str, Any]:
    return {"Name": name, "Soft": value, "Hard": value}


def _mounts(spec: ContainerSpec, runner: RunnerVolume) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        {
            "Type": "volume",
            "Source": runner.name,
            "Target": f"{MOUNT_ROOT}/bin",
            "ReadOnly": True,
            "VolumeOptions": {"NoCopy": True},
        },
        # Docker insists on "rslave" for what lies in its own directory; for a single file it is the same.
        _bind(runner.hosts_file, "/etc/hosts", read_only=True, propagation="rslave"),
    ]
    if spec.workspace is not None:
        mounts.append(_bind(str(spec.workspace), spec.workdir, read_only=False))
    mounts += [_bind(str(volume.source), volume.target, read_only=volume.read_only) for volume in spec.volumes]
    return mounts


def _bind(source: str, target: str, *, read_only: bool, propagation: str = "rprivate") -> dict[str, Any]:
    # A mount, not a "bind" string: Docker would create a missing source of the latter, as root.
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": read_only,
        "BindOptions": {"Propagation": propagation},
    }


def _in_place_of(image_volumes: Iterable[str], spec: ContainerSpec, mounts: list[dict[str, Any]]) -> dict[str, str]:
    """File systems in memory where the image declares volumes: those would be the host's disk, without any limit."""
    if spec.persistent:
        # All of its root file system is on that disk.
        return {}
    taken = {mount["Target"] for mount in mounts}
    options = _tmpfs_options(int(spec.limits.tmp), spec.uid, "0755")
    return {path: options for volume in image_volumes if (path := posixpath.normpath(volume)) not in taken}


def _tmpfs(spec: ContainerSpec) -> dict[str, str]:
    limits, uid = spec.limits, spec.uid
    tmpfs = {
        SOCKET_DIRECTORY: _tmpfs_options(_SOCKET_DIRECTORY_SIZE, uid, "0700", execute=False),
        "/tmp": _tmpfs_options(int(limits.tmp), uid, "1777"),  # noqa: S108 - the container's own
    }
    if not spec.persistent:
        tmpfs[HOME] = _tmpfs_options(int(limits.home), uid, "0700")
        if spec.workspace is None:
            tmpfs[spec.workdir] = _tmpfs_options(int(limits.workspace), uid, "0755")
    return tmpfs


def _tmpfs_options(size: int, uid: int, mode: str, *, execute: bool = True) -> str:
    inodes = max(64, size // _BYTES_PER_INODE)
    run = "exec" if execute else "noexec"
    return f"rw,nosuid,nodev,{run},size={size},nr_inodes={inodes},uid={uid},gid={uid},mode={mode}"
