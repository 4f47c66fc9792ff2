"""An image with nothing but a static busybox: no Python, no coreutils, no libc."""

from __future__ import annotations

import io
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker.errors
import pytest

BUSYBOX = "pydantic-ai-sandbox/test-busybox"
SCRATCH = "pydantic-ai-sandbox/test-scratch"
VERSION = "1"

APPLETS = frozenset({
    "cat", "chmod", "cp", "dd", "echo", "env", "false", "find", "grep", "head", "id", "kill", "ln", "ls", "mkdir",
    "mkfifo", "mv", "nohup", "printf", "ps", "pwd", "rm", "seq", "setsid", "sh", "sleep", "sort", "stat", "sync", "tail",
    "test", "timeout", "touch", "true", "wc", "yes",
})  # fmt: skip


def ensure_busybox_image(api: Any) -> str:
    """Make the image unless it is there, from this machine's busybox or from Debian's package of it."""
    return _ensure(api, BUSYBOX, lambda: _root(_busybox()))


def ensure_scratch_image(api: Any) -> str:
    """Make an image without a single program unless it is there."""
    return _ensure(api, SCRATCH, lambda: _root(None))


def _ensure(api: Any, name: str, content: Callable[[], bytes]) -> str:
    try:
        api.inspect_image(f"{name}:{VERSION}")
    except docker.errors.ImageNotFound:
        api.import_image_from_data(content(), repository=name, tag=VERSION, changes=['CMD ["/bin/sh"]'])
    return f"{name}:{VERSION}"


def _busybox() -> bytes:
    """The program, out of Debian's package."""
    with tempfile.TemporaryDirectory() as folder:
        for command in (["apt-get", "download", "busybox-static"], ["sh", "-c", "dpkg -x *.deb root"]):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"no static busybox: {' '.join(command)} said {done.stderr.strip()[-300:]}")
        return Path(folder, "root/bin/busybox").read_bytes()


def _root(busybox: bytes | None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("bin", "etc", "tmp"):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
        if busybox is not None:
            _add_programs(archive, busybox)
    return buffer.getvalue()


def _add_programs(archive: tarfile.TarFile, busybox: bytes) -> None:
    program = tarfile.TarInfo("bin/busybox")
    program.size, program.mode = len(busybox), 0o755
    archive.addfile(program, io.BytesIO(busybox))
    for applet in sorted(APPLETS):
        link = tarfile.TarInfo(f"bin/{applet}")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        archive.addfile(link)
