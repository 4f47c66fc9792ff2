"""What an image is built from, and the name that follows from it."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Generator, Iterable
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

import docker.utils.build

from ....errors import ImageBuildError
from ....runtimes import base_recipe, builtin
from ....spec import RuntimeConfig
from .bootstrap import SUITE
from .dockerfiles import declared_base
from .generating import generated_dockerfile, minimal_for, substitute_for
from .naming import repository, short_hash
from .pulling import Report
from .repositories import Repository

__all__ = ("Definition", "Source", "base_hash", "read_definition", "write_context")

DOCKERFILE = ".sandbox-dockerfile"
"""Name in the build context of the Dockerfile that is built, which may differ from the one in the folder."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Everything a build needs, lying on this machine."""

    dockerfile: str
    directory: Path | None = None
    """The build context; `None` where there is none."""
    files: tuple[str, ...] = ()
    """Paths of the build context, relative to `directory`, sorted."""
    base: str | None = None
    """The image that becomes `BASE_IMAGE`; `None`: the definition names what it builds on itself, or `substitute` is it."""
    substitute: RuntimeConfig | None = None
    """Runtime that takes the place of `base` where that cannot be had; `None`: a Debian made on this machine."""


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A runtime, read."""

    name: str
    tag: str
    """Name of its image, which says everything that decides what it becomes."""
    source: Callable[[Report], AbstractContextManager[Source]]
    """Gets what the build needs, for as long as it takes."""


def read_definition(runtime: RuntimeConfig) -> Definition:
    """Read a runtime's definition, all of it unless it lies in a repository.

    Raises:
        ImageBuildError: It cannot be read.
    """
    if runtime.git is not None:
        return _in_repository(runtime, Repository.parse(runtime.git))
    source = _generated(runtime) if runtime.dockerfile is None else _in_folder(runtime.name, runtime.dockerfile)
    content = [runtime.name, source.dockerfile, _content_hash(source)]
    if source.substitute is not None:
        content.append(read_definition(source.substitute).tag)
    elif source.base is not None:
        content.append(base_hash())
    return Definition(name=runtime.name, tag=_tag(runtime.name, *content), source=lambda _: _ready(source))


def _tag(name: str, *content: str) -> str:
    return f"{repository(name)}:{short_hash(*content)}"


@contextmanager
def _ready(source: Source) -> Generator[Source]:
    yield source


def _generated(runtime: RuntimeConfig) -> Source:
    image = runtime.base_image
    name = minimal_for(runtime) if image is None else substitute_for(image)
    substitute = None if name is None else builtin(name)
    if image is None:
        assert substitute is not None
        base = read_definition(substitute).tag
        return Source(dockerfile=generated_dockerfile(runtime, base), substitute=substitute)
    # Without a substitute, it is this image or none.
    base = image if substitute is not None else None
    return Source(dockerfile=generated_dockerfile(runtime, image), base=base, substitute=substitute)


def _in_repository(runtime: RuntimeConfig, repository: Repository) -> Definition:
    commit = repository.commit()

    @contextmanager
    def source(report: Report) -> Generator[Source]:
        with repository.checked_out(commit, report) as folder:
            yield _in_folder(runtime.name, folder)

    content = [runtime.name, repository.url, repository.folder, commit, base_hash()]
    return Definition(name=runtime.name, tag=_tag(runtime.name, *content), source=source)


def _in_folder(name: str, path: Path) -> Source:
    path = path / "Dockerfile" if path.is_dir() else path
    try:
        # The host opens this one; a link could make it any file of the host.
        if path.is_symlink():
            raise OSError(f"{path} is a symbolic link")
        dockerfile = path.read_text()
        files = _context_files(path.parent)
    except (OSError, UnicodeDecodeError) as error:
        raise ImageBuildError(
            f"the runtime {name!r} cannot be read: {error}; its folder must hold a Dockerfile"
        ) from error
    return Source(dockerfile=dockerfile, directory=path.parent, files=files, base=declared_base(dockerfile))


def _context_files(directory: Path) -> tuple[str, ...]:
    ignore = directory / ".dockerignore"
    lines = ignore.read_text().splitlines() if ignore.is_file() and not ignore.is_symlink() else []
    patterns = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return tuple(sorted(docker.utils.build.exclude_paths(directory, patterns)))


def base_hash() -> str:
    """Hash of what a bootstrapped base is made by; part of an image's name whichever base it has, to need no network for it."""
    recipe = base_recipe()
    return short_hash(SUITE, _content_hash(Source(dockerfile="", directory=recipe, files=_context_files(recipe))))


def _content_hash(source: Source) -> str:
    digest = hashlib.sha256()
    for name, path in _entries(source):
        if path.is_symlink():
            kind, content = b"l", os.fsencode(path.readlink())
        elif path.is_file():
            kind, content = (b"x" if os.access(path, os.X_OK) else b"f"), path.read_bytes()
        else:
            kind, content = b"d", b""
        digest.update(b"%s %d %s\0" % (kind, len(content), os.fsencode(name)))
        digest.update(content)
    return digest.hexdigest()


def _entries(source: Source) -> Iterable[tuple[str, Path]]:
    if source.directory is not None:
        yield from ((name, source.directory / name) for name in source.files)


def write_context(source: Source, dockerfile: str, target: IO[bytes]) -> None:
    """Write the build context as a tar that depends on the files' content alone, as the builder's own cache does.

    Args:
        source: What to build.
        dockerfile: The Dockerfile to build it by.
        target: Where to write to.
    """
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, path in _entries(source):
            entry = archive.gettarinfo(path, arcname=name)
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = ""
            entry.mode = 0o755 if entry.isdir() or entry.mode & 0o100 else 0o644
            if entry.isreg():
                with path.open("rb") as content:
                    archive.addfile(entry, content)
            else:
                archive.addfile(entry)
        text = dockerfile.encode()
        entry = tarfile.TarInfo(DOCKERFILE)
        entry.size = len(text)
        archive.addfile(entry, BytesIO(text))
