"""Directories of a persistent container, which lie in its own file system so that they survive a stop."""

from __future__ import annotations

import io
import tarfile

from ...spec import ContainerSpec
from .hardening import HOME

__all__ = ("home_and_workspace",)


def home_and_workspace(spec: ContainerSpec) -> bytes:
    """A tar archive, to be unpacked at `/`, of an empty home and an empty workspace that belong to its user."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        _add(archive, "home", 0, 0o755)
        _add(archive, HOME.lstrip("/"), spec.uid, 0o700)
        _add(archive, spec.workdir.lstrip("/"), spec.uid, 0o755)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, uid: int, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode, entry.uid, entry.gid = tarfile.DIRTYPE, mode, uid, uid
    archive.addfile(entry)
