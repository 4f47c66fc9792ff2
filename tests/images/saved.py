"""An image as `docker save` gives it, to look for what must not be in it."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import docker

PIECE = 4 * 1024 * 1024


def save(api: docker.APIClient, image: str, directory: Path) -> Path:
    path = directory / "image.tar"
    with path.open("wb") as target:
        for piece in api.get_image(image):
            target.write(piece)
    return path


def found_in(image: Path, needles: Iterable[bytes]) -> set[bytes]:
    """Those of the needles that are anywhere in a saved image: layers, configuration, history."""
    wanted = set(needles)
    longest = max(map(len, wanted), default=1)
    found: set[bytes] = set()
    with image.open("rb") as content:
        before = b""
        while piece := content.read(PIECE):
            window = before + piece
            found |= {needle for needle in wanted - found if needle in window}
            before = window[-longest:]
    return found


def config(image: Path) -> dict[str, Any]:
    with tarfile.open(image) as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        content = archive.extractfile(json.load(manifest)[0]["Config"])
        assert content is not None
        return json.load(io.TextIOWrapper(content))
