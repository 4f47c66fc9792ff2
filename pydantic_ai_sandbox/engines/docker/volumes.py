"""Host directories that are about to be mounted: found out what they really are, and refused if they hand out the host."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from ...errors import EngineError, UnsafeMountError
from ...spec import DEFAULT_UID, MANAGER_FOLDER, ContainerSpec, VolumeMount, refuse_host_directory

__all__ = ("prepare_workspace", "refuse_what_belongs_to_others", "resolve_mounts")


def prepare_workspace(workspace: Path, *, is_session: bool = False) -> int:
    """Make the directory if it is missing, and return the user that a sandbox over it runs as.

    That is its owner. A directory that belongs to root is given to the sandbox's own user as long as it is empty.

    Raises:
        UnsafeMountError: It must not be mounted.
        EngineError: It belongs to root and is not empty.
    """
    if not is_session:
        _refuse_managed(Path(os.path.realpath(workspace)), None)
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
        UnsafeMountError: One of them must not be mounted, or is a socket.
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
        raise UnsafeMountError(f"{str(source)!r} cannot be a volume: it is a socket, such as the engine's")
    return resolved


def refuse_what_belongs_to_others(
    spec: ContainerSpec, *, is_session: bool, engine_paths: Iterable[Path], others: Iterable[ContainerSpec]
) -> None:
    """Refuse mounts that would reach the engine, the directories of a session manager's users, or what another sandbox writes.

    A path below a directory that a sandbox may write to is not to be trusted however often it is resolved: the code in there can
    put a symbolic link in its place before the engine looks.

    Args:
        spec: With its host paths resolved.
        is_session: Whether a session manager makes it, over a directory that is its user's.
        engine_paths: Where the engine keeps its data and its socket.
        others: What other sandboxes were made from.

    Raises:
        UnsafeMountError: One of them is such a path.
    """
    paths = [volume.source for volume in spec.volumes]
    if spec.workspace is not None and not is_session:
        paths.append(spec.workspace)
    own = spec.workspace if is_session else None
    engine_paths, others = tuple(engine_paths), tuple(others)
    for path in paths:
        for of_engine in engine_paths:
            if path.is_relative_to(of_engine) or of_engine.is_relative_to(path):
                raise UnsafeMountError(
                    f"{str(path)!r} cannot be mounted: whoever has {of_engine} has the engine and the host"
                )
        _refuse_managed(path, own)
        for other in others:
            _refuse_what_it_writes(path, other)
            if other.workspace is not None and other is not spec and other.workspace != path:
                _refuse_managed_below(path, other.workspace)


def _refuse_managed(path: Path, own: Path | None) -> None:
    """Refuse the root of a session manager, and everything in it but the session's own directory itself."""
    if path == own:
        return
    for folder in (path, *path.parents):
        if _is_managed(folder):
            raise UnsafeMountError(
                f"{str(path)!r} cannot be mounted: a session manager keeps the files of its users in {folder}"
            )


def _is_managed(folder: Path) -> bool:
    """Whether a session manager has its root there; a folder of the same name that a sandbox made does not count."""
    try:
        found = (folder / MANAGER_FOLDER).lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid in (0, os.geteuid())


def _refuse_managed_below(path: Path, workspace: Path) -> None:
    """Refuse a directory in which somewhere a session manager has its root, seen by the sandbox of one of its users."""
    if workspace.is_relative_to(path) and any(
        _is_managed(folder) for folder in workspace.parents if folder.is_relative_to(path)
    ):
        raise UnsafeMountError(f"{str(path)!r} cannot be mounted: another user's files are in {workspace}")


def _refuse_what_it_writes(path: Path, other: ContainerSpec) -> None:
    for written in _written(other):
        if path != written and path.is_relative_to(written):
            raise UnsafeMountError(
                f"{str(path)!r} cannot be mounted: another sandbox writes to {written}, and could put a link to anywhere there; "
                "mount that directory itself, or a copy"
            )


def _written(spec: ContainerSpec) -> Iterator[Path]:
    if spec.workspace is not None:
        yield spec.workspace
    yield from (volume.source for volume in spec.volumes if not volume.read_only)
