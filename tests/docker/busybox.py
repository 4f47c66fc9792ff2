"""An image with nothing but a static busybox: no Python, no coreutils, no libc."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import docker.errors

TAG = "pydantic-ai-sandbox/test-busybox:1"

APPLETS = "sh cat chmod cp echo env find grep head id kill ln ls mkdir mkfifo mv printf ps pwd rm seq setsid sleep sort tail test touch true false timeout wc yes dd stat sync nohup"


def ensure_busybox_image(api: Any) -> str:
    """Make the image unless it is there: from the registry's, or from Debian's package where there is no registry."""
    try:
        api.inspect_image(TAG)
    except docker.errors.ImageNotFound:
        api.import_image_from_data(_root(_busybox()), repository=TAG.split(":")[0], tag=TAG.split(":")[1], changes=["CMD [\"/bin/sh\"]"])
    return TAG


def _busybox() -> bytes:
    """The program, from this machine or from Debian's package."""
    installed = Path("/bin/busybox")
    if installed.is_file() and b"statically" in subprocess.run(["file", installed], capture_output=True, check=False).stdout:
        return installed.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["apt-get", "download", "busybox-static"], cwd=folder, check=True, capture_output=True)
        (package,) = Path(folder).glob("*.deb")
        subprocess.run(["dpkg", "-x", package, "root"], cwd=folder, check=True, capture_output=True)
        return Path(folder, "root/bin/busybox").read_bytes()


def _root(busybox: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("bin", "etc", "tmp"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
        program = tarfile.TarInfo("bin/busybox")
        program.size, program.mode = len(busybox), 0o755
        archive.addfile(program, io.BytesIO(busybox))
        for applet in APPLETS.split():
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    return buffer.getvalue()
