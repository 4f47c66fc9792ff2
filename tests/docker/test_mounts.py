"""What must not be mounted is refused before any container is made, whatever it is called."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from pydantic_ai_sandbox import DockerEngine, DockerSandbox, SandboxError, SessionManager, UnsafeMountError

pytestmark = pytest.mark.docker

Make = Callable[..., DockerSandbox]


@pytest.fixture
def folder() -> Generator[Path]:
    """A directory whose path is short enough for a socket in it."""
    with tempfile.TemporaryDirectory(prefix="mounts-") as path:
        yield Path(path)


async def refused(make: Make, source: Path, match: str) -> None:
    with pytest.raises(UnsafeMountError, match=match):
        await make(volumes={str(source): "/data"}).run(["true"])


async def test_a_socket_of_any_name(make_sandbox: Make, folder: Path) -> None:
    path = folder / "harmless"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        await refused(make_sandbox, path, "socket")


@pytest.mark.parametrize("target", ["/", "/etc", "/var/run", "/var/lib/docker"])
async def test_a_link_to_what_is_refused(make_sandbox: Make, folder: Path, target: str) -> None:
    link = folder / "link"
    link.symlink_to(target)
    await refused(make_sandbox, link, "cannot be mounted")
    with pytest.raises(UnsafeMountError):
        await make_sandbox(workspace=link).run(["true"])


async def test_where_the_engine_keeps_its_data_is_asked_of_it(make_sandbox: Make, folder: Path) -> None:
    class Elsewhere(DockerEngine):
        def api(self) -> object:
            api = super().api()
            api.info = lambda: {"DockerRootDir": str(folder / "docker")}
            return api

    (folder / "docker" / "volumes").mkdir(parents=True)
    for source in (folder, folder / "docker", folder / "docker" / "volumes"):
        with pytest.raises(UnsafeMountError, match="has the engine"):
            await make_sandbox(engine=Elsewhere(), volumes={str(source): "/data"}).run(["true"])


async def test_a_session_managers_root_and_all_that_is_in_it(
    make_sandbox: Make, managers: Callable[..., SessionManager], tmp_path: Path
) -> None:
    alice = await managers().get_or_create("alice")
    await alice.run("mkdir data; ln -s / root", shell=True)
    root = tmp_path / "users"
    for source in (root, root / ".manager", root / "alice", root / "alice" / "data"):
        await refused(make_sandbox, source, "session manager keeps")
        with pytest.raises(UnsafeMountError, match="session manager keeps"):
            await make_sandbox(workspace=source).run(["true"])
    await refused(make_sandbox, root / "alice" / "root", "would hand the host")


async def test_a_directory_above_a_session_that_runs(
    make_sandbox: Make, managers: Callable[..., SessionManager], tmp_path: Path
) -> None:
    await managers().get_or_create("alice")
    await refused(make_sandbox, tmp_path, "another user's")


async def test_a_directory_in_what_another_sandbox_writes_to(make_sandbox: Make, folder: Path) -> None:
    project = folder / "project"
    (project / "data").mkdir(parents=True)
    project.chmod(0o777)
    project_owner = make_sandbox(volumes={str(project): "/project"})
    await project_owner.run(["true"])
    await refused(make_sandbox, project / "data", "another sandbox writes")
    # The same directory may be shared, and one that it only reads may be split up.
    assert (await make_sandbox(volumes={str(project): "/data"}).run(["true"])).exit_code == 0
    await project_owner.aclose()


async def test_a_directory_in_the_sandboxs_own_workspace(make_sandbox: Make, folder: Path) -> None:
    workspace = folder / "workspace"
    sandbox = make_sandbox(workspace=workspace)
    await sandbox.run(["mkdir", "/workspace/data"])
    await sandbox.aclose()
    with pytest.raises(SandboxError, match="writes to"):
        await make_sandbox(workspace=workspace, volumes={str(workspace / "data"): "/data"}).run(["true"])


async def test_a_directory_that_nobody_else_uses_is_mounted(make_sandbox: Make, folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "f").write_text("content")
    (folder / "data").chmod(0o755)
    folder.chmod(0o755)
    sandbox = make_sandbox(workspace=folder / "workspace", volumes={str(folder / "data"): "/data:ro"})
    assert (await sandbox.run(["cat", "/data/f"])).stdout == "content"
