"""Making a base image leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import docker
import pytest

from pydantic_ai_sandbox.engines.docker.images import bootstrap
from pydantic_ai_sandbox.engines.docker.images.bootstrap import bootstrap_base, obstacle
from pydantic_ai_sandbox.errors import ImageBuildError
from pydantic_ai_sandbox.runtimes import BuildProgress

TAG = "pydantic-ai-sandbox/lab-bootstrap:1"

as_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"),
    reason="making a base image needs root and util-linux",
)


@pytest.fixture
def debootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A script that stands in for debootstrap; `$3` is the target directory after two options and the suite."""
    script = tmp_path / "bin" / "debootstrap"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    return script


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    directory = tmp_path / "cache"
    directory.mkdir()
    return directory


GOOD = """\
#!/bin/sh
echo "I: Retrieving"
mkdir -p "$4/etc/dpkg/dpkg.cfg.d" "$4/usr/share/doc/thing" "$4/usr/share/man/man1" "$4/usr/lib" "$4/tmp"
mkdir -p "$4/etc/apt/sources.list.d"
touch "$4/etc/apt/sources.list" "$4/etc/apt/sources.list.d/more.list"
echo secret > "$4/etc/hostname"
touch "$4/etc/hosts" "$4/usr/share/doc/thing/copyright" "$4/usr/share/doc/thing/README" "$4/usr/share/man/man1/thing.1"
"""


@as_root
@pytest.mark.docker
def test_a_base_is_imported_trimmed_and_labelled(
    docker_api: docker.APIClient, debootstrap: Path, cache: Path, tmp_path: Path
) -> None:
    debootstrap.write_text(GOOD)
    seen: list[BuildProgress] = []
    bootstrap_base(docker_api, TAG, {"lab": "yes"}, cache, seen.append)
    try:
        image = docker_api.inspect_image(TAG)
        assert image["Config"]["Labels"] == {"lab": "yes"}
        names = files_in(docker_api, tmp_path)
    finally:
        docker_api.remove_image(TAG)
    assert "Retrieving" in [progress.message for progress in seen]
    assert "usr/share/doc/thing/copyright" in names
    assert "etc/apt/sources.list" not in names
    assert not names & {"usr/share/doc/thing/README", "usr/share/man/man1/thing.1"}
    assert list(cache.iterdir()) == []


def files_in(api: docker.APIClient, tmp_path: Path) -> set[str]:
    container = api.create_container(TAG, ["/nothing"])["Id"]
    try:
        (tmp_path / "image.tar").write_bytes(b"".join(api.export(container)))
    finally:
        api.remove_container(container)
    listing = subprocess.run(["tar", "-tf", tmp_path / "image.tar"], capture_output=True, text=True, check=True)
    return set(listing.stdout.splitlines())


@as_root
@pytest.mark.docker
def test_a_failure_shows_the_end_of_the_output(docker_api: docker.APIClient, debootstrap: Path, cache: Path) -> None:
    debootstrap.write_text("#!/bin/sh\necho 'E: no such mirror' >&2\nexit 1\n")
    with pytest.raises(ImageBuildError, match="E: no such mirror") as caught:
        bootstrap_base(docker_api, TAG, {}, cache, lambda _: None)
    assert "E: no such mirror" in caught.value.log_tail
    assert list(cache.iterdir()) == []


@as_root
@pytest.mark.docker
def test_silence_ends_it(
    docker_api: docker.APIClient, debootstrap: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    debootstrap.write_text('#!/bin/sh\nmkdir -p "$4"\necho started\nexec sleep 298\n')
    monkeypatch.setattr(bootstrap, "SILENCE", 1.0)
    with pytest.raises(ImageBuildError, match="came to a halt: no output for 1 s") as caught:
        bootstrap_base(docker_api, TAG, {}, cache, lambda _: None)
    assert caught.value.log_tail == "started"
    assert list(cache.iterdir()) == []
    assert not processes("sleep 298")


@as_root
@pytest.mark.docker
def test_a_killed_process_leaves_neither_files_nor_processes(debootstrap: Path, cache: Path) -> None:
    debootstrap.write_text('#!/bin/sh\nmkdir -p "$4"\necho started\nexec sleep 299\n')
    program = textwrap.dedent(f"""
        from pathlib import Path
        import docker
        from pydantic_ai_sandbox.engines.docker.images.bootstrap import bootstrap_base
        bootstrap_base(docker.from_env().api, "{TAG}", {{}}, Path("{cache}"), lambda p: print(p.message, flush=True))
    """)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert any(line == "started\n" for line in process.stdout)
    deadline = time.monotonic() + 10
    while not processes("sleep 299"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 10
    while (processes("sleep 299") or list(cache.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not processes("sleep 299")
    assert list(cache.iterdir()) == []


def processes(command: str) -> list[str]:
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if line == command:
            found.append(path.parent.name)
    return found


def test_each_obstacle_is_told_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    local = docker.APIClient(base_url="unix:///nobody.sock", version="1.41")
    remote = docker.APIClient(base_url="tcp://192.0.2.1:2375", version="1.41")
    monkeypatch.setattr(bootstrap, "_os_release", lambda: {"ID": "debian"})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/sbin/{program}")
    assert obstacle(local) is None
    assert "remote" in (obstacle(remote) or "")
    monkeypatch.setattr(shutil, "which", lambda program: None)
    assert "apt-get install debootstrap" in (obstacle(local) or "")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "as root" in (obstacle(local) or "")
    monkeypatch.setattr(bootstrap, "_os_release", lambda: {"ID": "fedora"})
    assert "image registry" in (obstacle(local) or "")
