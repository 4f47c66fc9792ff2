"""A Debian base image made on this machine, for where a Debian mirror can be reached and an image registry cannot."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import docker

from ....errors import ImageBuildError
from ....runtimes import BuildProgress, base_recipe
from ..errors import docker_errors

__all__ = ("SUITE", "bootstrap_base", "debian_mirror", "obstacle")

SUITE = "trixie"
"""Debian release of the base: its Python is 3.13."""

SILENCE = 120.0
"""Seconds without a word from debootstrap after which it is given up: its mirror does not answer."""

_TAIL_LINES = 60
_STOP_SECONDS = 20.0


def obstacle(api: docker.APIClient) -> str | None:
    """What keeps this machine from making a base image, as the remedy; `None` when nothing does."""
    if not api.base_url.startswith("http+docker://"):
        return "the Docker daemon is remote; give it an image registry, or load the image into it"
    if _os_release().get("ID") != "debian":
        return "only Debian can make a base image itself; give the Docker daemon an image registry"
    if os.geteuid() != 0:
        return "run this once as root, so that a base image can be made from Debian packages"
    if shutil.which("debootstrap") is None:
        return "`apt-get install debootstrap`, so that a base image can be made from Debian packages"
    return None


def bootstrap_base(
    api: docker.APIClient, tag: str, labels: dict[str, str], cache: Path, report: Callable[[BuildProgress], None]
) -> None:
    """Make a Debian base and give it to the daemon as `tag`. Takes about a minute.

    Everything happens in a directory below `cache` that is gone afterwards, also when this process is killed.

    Raises:
        ImageBuildError: It could not be made; the end of debootstrap's output is in `log_tail`.
        EngineUnavailableError: The daemon does not answer.
    """
    report(BuildProgress(step="bootstrap", message="Making a Debian base image, which takes about a minute"))
    work = Path(tempfile.mkdtemp(prefix="bootstrap-", dir=cache))
    try:
        _run_recipe(work, report)
        report(BuildProgress(step="bootstrap", message="Importing it"))
        repository, _, version = tag.rpartition(":")
        changes = [f'LABEL {name}="{value}"' for name, value in labels.items()]
        with docker_errors("import the base image"):
            api.import_image_from_file(str(work / "base.tar"), repository, version, changes=["CMD /bin/sh", *changes])
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _run_recipe(work: Path, report: Callable[[BuildProgress], None]) -> None:
    mirror = debian_mirror() or ""
    # Stopped by the kernel when this process dies, whatever of; the script then tidies up after itself.
    command = ["setpriv", "--pdeathsig", "TERM", "sh", str(base_recipe() / "bootstrap.sh"), str(work), SUITE, mirror]
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    with _started(command) as (process, output):
        for line in _lines(output, tail):
            tail.append(line)
            report(BuildProgress(step="bootstrap", message=line.removeprefix("I: ")))
        process.wait()
    if process.returncode:
        raise ImageBuildError(
            f"could not make a Debian base image (exit code {process.returncode}): {tail[-1] if tail else 'no output'}",
            log_tail="\n".join(tail),
        )


@contextmanager
def _started(command: list[str]) -> Generator[tuple[subprocess.Popen[bytes], int]]:
    """A process and the end of a pipe that has all its output; told to stop, and given time to tidy up, on the way out."""
    reader, writer = os.pipe()
    process = None
    try:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer, start_new_session=True
            )
        finally:
            os.close(writer)
        yield process, reader
    finally:
        os.close(reader)
        if process is not None:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _lines(output: int, tail: Sequence[str]) -> Generator[str]:
    pending = b""
    while True:
        readable, _, _ = select.select([output], [], [], SILENCE)
        if not readable:
            raise ImageBuildError(
                f"making a Debian base image came to a halt: no output for {SILENCE:.0f} s; does the Debian mirror answer?",
                log_tail="\n".join(tail),
            )
        chunk = os.read(output, 65536)
        *lines, pending = (pending + chunk).split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)
        if not chunk:
            return


def _os_release() -> dict[str, str]:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip("\"'") for name, _, value in (line.partition("=") for line in lines)}


def debian_mirror() -> str | None:
    """The Debian archive that this machine's own packages come from; `None` where apt knows none: debootstrap's own choice."""
    # Labels are known only once apt has fetched its lists.
    for query in ("Label: Debian", f"Release: {_os_release().get('VERSION_CODENAME')}"):
        command = [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
            "Component: main",
            query,
        ]
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        for uri in result.stdout.splitlines():
            if uri.startswith(("http://", "https://", "file:")):
                return uri
    return None
