"""Host directories that are about to be mounted: found out what they really are, and refused if they hand out the host."""

from __future__ import annotations

import os
from pathlib import Path

from ...spec import ContainerSpec, VolumeMount, refuse_host_directory

__all__ = ("resolve_mounts",)


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
