"""Runtimes of one's own: from packages, from a folder, from a repository, and what is left when they cannot be built."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import docker
import pytest

from pydantic_ai_sandbox import BuildProgress, DockerSandbox, ImageBuildError, RuntimeConfig, RuntimeNotFoundError
from pydantic_ai_sandbox.engines.docker.images import base_kind, ensure_image, image_name
from pydantic_ai_sandbox.engines.docker.images.bases import choose_base
from pydantic_ai_sandbox.engines.docker.images.naming import LABEL_BUILD
from pydantic_ai_sandbox.runtimes import builtin
from tests.docker.busybox import ensure_busybox_image
from tests.images.saved import config, found_in, save

pytestmark = [pytest.mark.docker, pytest.mark.slow]

IDLE = 90

USER, PASSWORD = "builder", "correct-horse-battery"
TOKEN = "npm-token-0123456789"


@pytest.fixture(autouse=True)
def clean_daemon(docker_api: docker.APIClient) -> Generator[None]:
    """Nothing that a test builds stays, and nothing is there that a build should have removed itself."""
    before = images_of(docker_api)
    yield
    for image in docker_api.images("pydantic-ai-sandbox/lab-custom"):
        docker_api.remove_image(image["Id"], force=True)
    assert images_of(docker_api) - before == set()


def images_of(api: docker.APIClient) -> set[str]:
    return {
        image["Id"]
        for image in api.images(all=True)
        # Other tests make theirs when they first need them.
        if not any(tag.startswith("pydantic-ai-sandbox/test-") for tag in image["RepoTags"] or ())
    }


def lab(**parts: Any) -> RuntimeConfig:
    return RuntimeConfig(name="lab-custom", **parts)


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, ""]))
    return path


# -- An index that wants a password, on this machine ---------------------------------------------------------------------


def wheel() -> tuple[str, bytes]:
    """A package with one module, as pip takes it."""
    files = {
        "lab_lent.py": "ANSWER = 42\n",
        "lab_lent-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: lab-lent\nVersion: 1.0\n",
        "lab_lent-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: lab\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip('=')},{len(text)}"
        for name, text in files.items()
    ]
    files["lab_lent-1.0.dist-info/RECORD"] = "\n".join([*record, "lab_lent-1.0.dist-info/RECORD,,", ""])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return "lab_lent-1.0-py3-none-any.whl", buffer.getvalue()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Generator[list[str]]:
    """This host's package index, with a password; what was asked of it."""
    name, content = wheel()
    asked: list[str] = []
    authorization = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            if self.headers.get("Authorization") != authorization:
                self.answer(401, b"", ("WWW-Authenticate", "Basic"))
            elif self.path == "/simple/lab-lent/":
                self.answer(200, f'<a href="/files/{name}">{name}</a>'.encode(), ("Content-Type", "text/html"))
            elif self.path == f"/files/{name}":
                self.answer(200, content, ("Content-Type", "application/zip"))
            else:
                self.answer(404, b"")

        def answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
            self.send_response(status)
            for header in (*headers, ("Content-Length", str(len(body)))):
                self.send_header(*header)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://{USER}:{PASSWORD}@127.0.0.1:{server.server_address[1]}/simple")
        monkeypatch.setenv("NO_PROXY", "planted.no-proxy.example")
        write(tmp_path / "npmrc", "registry=http://127.0.0.1:9/", f"//127.0.0.1:9/:_authToken={TOKEN}")
        monkeypatch.setenv("NPM_CONFIG_USERCONFIG", str(tmp_path / "npmrc"))
        yield asked
        server.shutdown()
        thread.join()


def planted() -> list[bytes]:
    """Everything of the host's settings above that can be told apart."""
    address = os.environ["PIP_INDEX_URL"].rpartition("@")[2].partition("/")[0]
    return [
        PASSWORD.encode(),
        TOKEN.encode(),
        address.encode(),
        b"planted.no-proxy",
        b".sandbox-build",
        b"127.0.0.1:9/",
    ]


async def test_packages_come_from_the_hosts_index_of_which_nothing_stays(
    docker_api: docker.APIClient, index: list[str], tmp_path: Path
) -> None:
    runtime = lab(
        packages=["lab-lent==1.0"], setup=["echo $GREETING > /etc/greeting"], env={"GREETING": "hello 'x' \"$y\""}
    )
    seen: list[BuildProgress] = []
    image = ensure_image(docker_api, runtime, progress=seen.append)
    assert "/simple/lab-lent/" in index
    assert {"base", "build", "finish"} <= {event.step for event in seen}

    saved = save(docker_api, image, tmp_path)
    assert found_in(saved, [*planted(), b"ANSWER = 42"]) == {b"ANSWER = 42"}
    made = config(saved)
    assert LABEL_BUILD not in made["config"]["Labels"]
    names = {entry.partition("=")[0] for entry in made["config"]["Env"]}
    assert names == {"PATH", "HOME", "LANG", "GREETING"}

    async with DockerSandbox(runtime, idle_timeout=IDLE) as sandbox:
        result = await sandbox.run(["python", "-c", "import lab_lent; print(lab_lent.ANSWER)"])
        assert (result.stdout, result.exit_code) == ("42\n", 0)
        result = await sandbox.run("cat /etc/greeting; echo $GREETING; id -u; pwd", shell=True)
        assert result.stdout.splitlines() == ["hello 'x' \"$y\""] * 2 + ["10001", "/workspace"]


@pytest.mark.parametrize(
    ("manager", "package", "command"),
    [
        ("npm", "is-number@7.0.0", "node -p 'require(\"is-number\")(7)' && cat > a.mjs && node a.mjs"),
        ("apt", "jq", "echo '{\"a\": true}' | jq .a && jq --version > /dev/null && echo true"),
    ],
)
async def test_each_package_manager_installs_what_commands_find(manager: Any, package: str, command: str) -> None:
    runtime = lab(package_manager=manager, packages=[package])
    script = b"import isNumber from 'is-number'; console.log(isNumber(7));"
    async with DockerSandbox(runtime, idle_timeout=IDLE) as sandbox:
        result = await sandbox.run(command, shell=True, stdin=script)
        assert (result.stdout, result.exit_code) == ("true\ntrue\n", 0), result.stderr
        assert (await sandbox.run(["ls", "/tmp", "/var/lib/apt/lists", "/root/.npm"])).stdout.split() == [
            "/tmp:",
            "/var/lib/apt/lists:",
        ]


def test_a_build_that_writes_a_password_down_fails(docker_api: docker.APIClient, index: list[str]) -> None:
    runtime = lab(setup=["mkdir -p /opt/notes", "echo $PIP_INDEX_URL > /opt/notes/index"])
    with pytest.raises(ImageBuildError, match=r"password or a token .* into /opt/notes/index,") as caught:
        ensure_image(docker_api, runtime)
    assert PASSWORD not in str(caught.value)


def test_a_folder_with_an_image_of_its_own_is_lent_the_settings_too(
    docker_api: docker.APIClient, index: list[str], tmp_path: Path
) -> None:
    minimal = ensure_image(docker_api, builtin("python-minimal"))
    write(
        tmp_path / "mine" / "Dockerfile",
        f"FROM {minimal} AS build",
        "RUN python3 -m venv /tmp/v && /tmp/v/bin/pip install --no-cache-dir lab-lent && mv /tmp/v/lib/*/*/lab_lent.py /workspace/",
        f"FROM {minimal}",
        "COPY --from=build /workspace/lab_lent.py /opt/",
    )
    image = ensure_image(docker_api, lab(dockerfile=tmp_path / "mine"))
    saved = save(docker_api, image, tmp_path)
    assert found_in(saved, [*planted(), b"ANSWER = 42"]) == {b"ANSWER = 42"}


def test_an_image_made_from_nothing_has_nothing_to_give_back(
    docker_api: docker.APIClient, index: list[str], tmp_path: Path
) -> None:
    write(tmp_path / "mine" / "Dockerfile", "FROM scratch", "COPY file /file")
    write(tmp_path / "mine" / "file", "content of it")
    image = ensure_image(docker_api, lab(dockerfile=tmp_path / "mine"))
    assert found_in(save(docker_api, image, tmp_path), [*planted(), b"content of it"]) == {b"content of it"}


# -- Where it comes from -------------------------------------------------------------------------------------------------


def test_without_a_registry_a_runtime_of_ours_stands_in_for_an_official_image(docker_api: docker.APIClient) -> None:
    runtime = lab(base_image="python:3.12-slim", setup=["python3 -c 'import ssl'"])
    seen: list[BuildProgress] = []
    image = ensure_image(docker_api, runtime, progress=seen.append)
    kind = base_kind(docker_api, image)
    (said,) = (event.message for event in seen if event.message.startswith("Building on "))
    assert kind in ("official", "bootstrapped")
    assert said.endswith(f"({kind})")


def test_no_other_image_is_replaced_by_something_else(docker_api: docker.APIClient) -> None:
    runtime = lab(base_image="127.0.0.1:9/lab/special:1")
    with pytest.raises(ImageBuildError, match=r"'lab-custom' is built on an image that cannot be had: .*special"):
        ensure_image(docker_api, runtime)


def test_what_is_no_image_name_is_refused(docker_api: docker.APIClient) -> None:
    with pytest.raises(RuntimeNotFoundError, match="not a name for an image"):
        ensure_image(docker_api, lab(base_image="a/../../containers/json"))


def test_a_base_that_is_ours_alone_needs_no_registry(docker_api: docker.APIClient) -> None:
    asked: list[str] = []
    image, _ = choose_base(
        docker_api, None, builtin("python-minimal"), lambda runtime: asked.append(runtime.name) or "made:1", print
    )
    assert (image, asked) == ("made:1", ["python-minimal"])


async def test_files_lie_and_commands_start_where_the_runtime_says(
    docker_api: docker.APIClient, tmp_path: Path
) -> None:
    minimal = ensure_image(docker_api, builtin("python-minimal"))
    dockerfile = write(tmp_path / "Other.dockerfile", f"FROM {minimal}", "RUN true")
    runtime = lab(dockerfile=dockerfile, workdir="/srv/app", env={"A": "from the runtime", "B": "from the runtime"})
    files = tmp_path / "files"
    files.mkdir(mode=0o700)
    async with DockerSandbox(runtime, workspace=files, env={"B": "from the sandbox"}, idle_timeout=IDLE) as sandbox:
        result = await sandbox.run("pwd; echo $A; echo $B; echo text > file", shell=True)
        assert result.stdout.splitlines() == ["/srv/app", "from the runtime", "from the sandbox"]
        assert await sandbox.working_dir() == "/srv/app"
    assert (files / "file").read_text() == "text\n"


@pytest.fixture
def repository(tmp_path: Path, docker_api: docker.APIClient) -> Path:
    """A bare repository: a Dockerfile at the top, another one in a folder on the branch `next`, a tag."""
    busybox = ensure_busybox_image(docker_api)
    work, bare = tmp_path / "work", tmp_path / "lab.git"
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    git(tmp_path, "init", "--quiet", "--initial-branch=main", str(work))
    write(work / "Dockerfile", f"FROM {busybox}", "COPY which /opt/which")
    write(work / "which", "main")
    commit(work, "one")
    git(work, "tag", "-a", "-m", "x", "v1")
    git(work, "checkout", "--quiet", "-b", "next/one")
    write(work / "deep" / "er" / "Dockerfile", f"FROM {busybox}", "COPY which /opt/which")
    write(work / "deep" / "er" / "which", "next")
    (work / "away").symlink_to("/etc")
    (work / "linked").mkdir()
    (work / "linked" / "Dockerfile").symlink_to("/etc/passwd")
    commit(work, "two")
    git(work, "push", "--quiet", "--all", str(bare))
    git(work, "push", "--quiet", "--tags", str(bare))
    return bare


def git(directory: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=lab", "-c", "user.email=lab@example.invalid"]
    command = ["git", *identity, "-C", str(directory), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def commit(work: Path, message: str) -> None:
    git(work, "add", ".")
    git(work, "commit", "--quiet", "-m", message)


def content(api: docker.APIClient, image: str) -> str:
    container = api.create_container(image, ["cat", "/opt/which"], network_disabled=True)["Id"]
    try:
        api.start(container)
        api.wait(container, timeout=30)
        return api.logs(container).decode().strip()
    finally:
        api.remove_container(container, force=True)


@pytest.mark.parametrize(
    ("part", "which"), [("", "main"), ("#v1", "main"), ("#main:", "main"), ("#next/one:deep/er", "next")]
)
def test_a_repository_is_built_at_a_branch_or_a_tag(
    docker_api: docker.APIClient, repository: Path, part: str, which: str
) -> None:
    runtime = lab(git=f"file://{repository}{part}")
    seen: list[BuildProgress] = []
    image = ensure_image(docker_api, runtime, progress=seen.append)
    assert content(docker_api, image) == which
    assert "fetch" in {event.step for event in seen}
    seen.clear()
    assert ensure_image(docker_api, runtime, progress=seen.append) == image
    assert seen == []


def test_a_repository_that_moved_on_is_built_anew_and_a_commit_never_asked_for(
    docker_api: docker.APIClient, repository: Path
) -> None:
    first = git(repository, "rev-parse", "main")
    pinned = lab(git=f"file://{repository}#{first}")
    image = ensure_image(docker_api, pinned)
    name = image_name(lab(git=f"file://{repository}"))
    git(repository, "update-ref", "refs/heads/main", "refs/heads/next/one")
    assert image_name(lab(git=f"file://{repository}")) != name
    repository.rename(repository.with_name("gone"))
    assert ensure_image(docker_api, pinned) == image
    with pytest.raises(ImageBuildError, match="cannot be fetched"):
        ensure_image(docker_api, lab(git=f"file://{repository}"))


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        ("#nosuch", "no branch or tag 'nosuch'"),
        ("#main:nosuch", "no folder 'nosuch'"),
        ("#next/one:away", "no folder 'away'"),
        ("#next/one:linked", "is a symbolic link"),
        ("#main:../..", "not a folder inside"),
        ("#main:/etc", "not a folder inside"),
        ("#--upload-pack=touch", "not a branch"),
        ("#next/one:deep", "must hold a Dockerfile"),
    ],
)
def test_nothing_but_what_is_in_the_repository_is_built(
    docker_api: docker.APIClient, repository: Path, part: str, complaint: str
) -> None:
    with pytest.raises(ImageBuildError, match=complaint):
        ensure_image(docker_api, lab(git=f"file://{repository}{part}"))


@pytest.mark.parametrize("address", ["ext::sh -c touch% /x", "/etc", "--upload-pack=x", "fd::17", "https://"])
def test_an_address_runs_no_program(docker_api: docker.APIClient, address: str) -> None:
    with pytest.raises(ImageBuildError, match="not the address of a git repository"):
        ensure_image(docker_api, lab(git=address))


def test_a_repositorys_password_is_in_no_message(docker_api: docker.APIClient) -> None:
    with pytest.raises(ImageBuildError) as caught:
        ensure_image(docker_api, lab(git=f"http://{USER}:{PASSWORD}@127.0.0.1:9/x.git"))
    assert PASSWORD not in str(caught.value) + caught.value.log_tail
    assert "127.0.0.1:9/x.git" in str(caught.value)


# -- Builds that do not get to their end ---------------------------------------------------------------------------------


def test_the_failing_step_is_named_and_nothing_stays(docker_api: docker.APIClient) -> None:
    runtime = lab(setup=["echo first > /opt/first", "echo the reason >&2; exit 7"])
    with pytest.raises(ImageBuildError, match=r"exit 7.*non-zero code: 7") as caught:
        ensure_image(docker_api, runtime)
    assert caught.value.step == 'RUN ["/bin/sh", "-ec", "echo the reason >&2; exit 7"]'
    assert "the reason" in caught.value.log_tail.splitlines()


def test_a_build_that_is_called_off_leaves_nothing(docker_api: docker.APIClient) -> None:
    class CalledOffError(Exception):
        pass

    def call_off(event: BuildProgress) -> None:
        if event.message == "half way":
            raise CalledOffError

    runtime = lab(setup=["touch /opt/first", "echo half way; sleep 300"])
    with pytest.raises(CalledOffError):
        ensure_image(docker_api, runtime, progress=call_off)
    deadline = time.monotonic() + 20
    while busy := [each for each in docker_api.containers(all=True) if "sleep 300" in each["Command"]]:
        assert time.monotonic() < deadline, busy
        time.sleep(0.1)


def test_what_a_killed_build_leaves_goes_with_the_next_one(docker_api: docker.APIClient, index: list[str]) -> None:
    """The settings are lent under a name that the next build of the same image looks for."""
    program = textwrap.dedent("""
        from pydantic_ai_sandbox import RuntimeConfig
        from pydantic_ai_sandbox.engines.docker.client import connect_daemon
        from pydantic_ai_sandbox.engines.docker.images import ensure_image
        runtime = RuntimeConfig(name="lab-custom", setup=["touch /opt/first", "test -e /etc/nosuch || echo half way; sleep 2"])
        ensure_image(connect_daemon(None, 60), runtime, progress=lambda event: print(event.message, flush=True))
    """)
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert any(line == "half way\n" for line in process.stdout)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    left = docker_api.images(filters={"label": LABEL_BUILD}, all=True)
    assert left
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert docker_api.images(filters={"label": LABEL_BUILD}, all=True) == []
