"""Taking a loan out of an image that was built on it: one layer, its entry in the history, its variables and its label."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from ....errors import ImageBuildError, SandboxError
from ..client import Daemon
from ..errors import docker_errors
from .lending import Loan
from .locks import cache_directory
from .naming import LABEL_BUILD
from .settings import DIRECTORY

__all__ = ("reclaim", "without_loan")

_PIECE = 1024 * 1024

_GZIP = b"\x1f\x8b"
"""How a compressed layer begins; not every daemon saves them plain."""


def reclaim(api: Daemon, image: str, loans: Iterable[Loan], tag: str, secrets: Collection[str]) -> None:
    """Give the daemon, as `tag`, the image `image` without what it was lent.

    The daemon cannot take a layer out of the middle, so the image is fetched from it, changed and loaded again.

    Raises:
        ImageBuildError: One of the image's other layers holds the settings, or a secret among them.
    """
    place = cache_directory()
    try:
        with tempfile.TemporaryDirectory(prefix="finish-", dir=place) as directory:
            _exchange(api, image, Path(directory), tuple(loans), tag, secrets)
    except SandboxError:
        raise
    except (tarfile.TarError, KeyError, TypeError, ValueError) as error:
        raise ImageBuildError(
            f"Docker saved the image that was built in a form that is not known here: {error!r}"
        ) from error
    except OSError as error:
        raise ImageBuildError(
            f"this host's settings could not be taken out of the image: {error}; it takes room for two copies of it in {place}"
        ) from error


def _exchange(
    api: Daemon, image: str, place: Path, loans: tuple[Loan, ...], tag: str, secrets: Collection[str]
) -> None:
    saved, cleaned = place / "saved.tar", place / "cleaned.tar"
    with docker_errors("fetch the image that was built"):
        pieces = api.get_image(image, chunk_size=_PIECE)
    with saved.open("wb") as target:
        for piece in _read_by(pieces):
            target.write(piece)
    without_loan(saved, cleaned, loans, tag, secrets)
    saved.unlink()
    with cleaned.open("rb") as source, docker_errors("load the image that was built"):
        for event in cast("Iterable[dict[str, Any]]", api.load_image(source)):
            if "error" in event:
                raise ImageBuildError(f"Docker could not load the image that was built: {event['error']}")


def _read_by(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same pieces; the daemon's failures to give them are told as such, unlike those of whoever takes them."""
    while True:
        with docker_errors("fetch the image that was built"):
            piece = next(pieces, None)
        if piece is None:
            return
        yield piece


def without_loan(saved: Path, cleaned: Path, loans: tuple[Loan, ...], tag: str, secrets: Collection[str]) -> None:
    """Write what `docker save` gave as `docker load` wants it, without the loan that is at the bottom of it.

    Raises:
        ImageBuildError: Another layer holds the settings, or a secret among them.
    """
    with tarfile.open(saved) as archive, tarfile.open(cleaned, mode="w") as target:
        (entry,) = json.loads(_read(archive, "manifest.json"))
        config = json.loads(_read(archive, entry["Config"]))
        layers: list[str] = entry["Layers"]
        loan = _loan_below(config, loans)
        if loan is not None:
            del layers[len(loan.layers) - 1]
            _clean(config, loan)
        names = [f"{number}/layer.tar" for number in range(len(layers))]
        first_own = 0 if loan is None else len(loan.layers) - 1
        for number, (layer, name) in enumerate(zip(layers, names, strict=True)):
            if number >= first_own:
                _check(archive, layer, secrets)
            _copy(archive, layer, target, name)
        content = json.dumps(config, ensure_ascii=False).encode()
        config_name = f"{hashlib.sha256(content).hexdigest()}.json"
        _add(target, config_name, content)
        manifest = [{"Config": config_name, "RepoTags": [tag], "Layers": names}]
        _add(target, "manifest.json", json.dumps(manifest).encode())


def _loan_below(config: dict[str, Any], loans: tuple[Loan, ...]) -> Loan | None:
    """The loan that the image was built on; a last stage that starts from nothing has none."""
    digests = tuple(config["rootfs"]["diff_ids"])
    return next((loan for loan in loans if digests[: len(loan.layers)] == loan.layers), None)


def _clean(config: dict[str, Any], loan: Loan) -> None:
    del config["rootfs"]["diff_ids"][len(loan.layers) - 1]
    del config["history"][loan.history - 1]
    # What the builder notes about its last step, variables included; nobody reads it.
    config.pop("container", None)
    config.pop("container_config", None)
    config.pop("parent", None)
    settings: dict[str, Any] = config["config"]
    settings["Env"] = _own_env(settings.get("Env") or [], loan)
    if labels := settings.get("Labels"):
        labels.pop(LABEL_BUILD, None)


def _own_env(env: list[str], loan: Loan) -> list[str]:
    lent = set(loan.env) - set(loan.original_env)
    original = {entry.partition("=")[0]: entry for entry in loan.original_env}
    own = (original.get(entry.partition("=")[0]) if entry in lent else entry for entry in env)
    return [entry for entry in own if entry is not None]


def _check(archive: tarfile.TarFile, layer: str, secrets: Collection[str]) -> None:
    needles = [secret.encode() for secret in secrets]
    if needles and _holds(archive, layer, needles):
        raise ImageBuildError(
            f"the build wrote a password or a token of this host's settings into {_culprit(archive, layer, needles)}, "
            "where everybody who has the image could read it; delete that file in the same instruction"
        )
    with tarfile.open(fileobj=_open(archive, layer)) as content:
        for member in content:
            if member.name.removeprefix("./").startswith(DIRECTORY.lstrip("/")):
                raise ImageBuildError(f"the build changed {DIRECTORY}, which is only lent to it")


def _holds(archive: tarfile.TarFile, layer: str, needles: list[bytes]) -> bool:
    content = _open(archive, layer)
    compressed = content.read(len(_GZIP)) == _GZIP
    content.seek(0)
    return _contains(cast("IO[bytes]", gzip.GzipFile(fileobj=content)) if compressed else content, needles)


def _contains(content: IO[bytes], needles: list[bytes]) -> bool:
    overlap = max(map(len, needles)) - 1
    before = b""
    while piece := content.read(_PIECE):
        window = before + piece
        if any(needle in window for needle in needles):
            return True
        before = window[-overlap:] if overlap else b""
    return False


def _culprit(archive: tarfile.TarFile, layer: str, needles: list[bytes]) -> str:
    with tarfile.open(fileobj=_open(archive, layer)) as content:
        for member in content:
            file = content.extractfile(member) if member.isreg() else None
            if file is not None and _contains(file, needles):
                return f"/{member.name}"
    return "a file's name"


def _open(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    # Equal layers are saved as links to each other, which the archive follows.
    file = archive.extractfile(name)
    assert file is not None
    return file


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    return _open(archive, name).read()


def _copy(archive: tarfile.TarFile, source: str, target: tarfile.TarFile, name: str) -> None:
    file = _open(archive, source)
    entry = tarfile.TarInfo(name)
    file.seek(0, io.SEEK_END)
    entry.size = file.tell()
    file.seek(0)
    target.addfile(entry, file)


def _add(target: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    target.addfile(entry, io.BytesIO(content))
