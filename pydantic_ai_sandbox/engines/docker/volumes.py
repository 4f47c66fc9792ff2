"""Host directories that are about to be mounted: found out what they really are, and refused if they hand out the host."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import EngineError
from ...spec import DEFAULT_UID, ContainerSpec, VolumeMount, refuse_host_directory

__all__ = ("prepare_workspace", "resolve_mounts")


def prepare_workspace(workspace: Path) -> int:
    """Make the directory if it is missing, and return the user that a sandbox over it runs as.

    That is its owner. A directory that belongs to root is given to the sandbox's own user as long as it is empty.

    Raises:
        ValueError: It must not be mounted.
        EngineError: It belongs to root and is not empty.
    """
    if not os.path.lexists(workspace):
        workspace.mkdir(mode=0o700, parents=True, exist_ok=True)
    resolved = _resolve(workspace)
    owner = resolved.stat().st_uid
    if owner != 0:
        return owner
    # Ours to give away only while nothing in it can belong to somebody else.
    if any(resolved.iterdir()):
        raise EngineError(
            f"{workspace} belongs to root, and sandboxes never run as root: give it to the sandbox's user with "
            f"`chown -R {DEFAULT_UID}:{DEFAULT_UID} {workspace}`"
        )
    os.chown(resolved, DEFAULT_UID, DEFAULT_UID)
    return DEFAULT_UID


def resolve_mounts(spec: ContainerSpec) -> ContainerSpec:
    """The spec with every host path resolved, because dockerd follows symbolic links in them.

    Raises:
        ValueError: One of them must not be mounted, or is a socket.
        FileNotFoundError: One of them does not exist.
    """
    volumes = tuple(
        VolumeMount(source=_resolve(volume.source), target=volume.target, read_only=volume.read_only)
        for volume in spec.volumes
    )
    workspace = spec.workspace and _resolve(spec.workspace)
    return spec.model_copy(update={"volumes": volumes, "workspace": workspace})


def _resolve(source: Path) -> Path:
    resolved = Path(os.path.realpath(source, strict=True))
    refuse_host_directory(resolved)
    if resolved.is_socket():
        raise ValueError(f"{str(source)!r} cannot be a volume: it is a socket, such as the engine's")
    return resolved
