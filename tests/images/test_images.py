"""A runtime's image is built once, named after its content, and every way of not getting one ends with a remedy."""

from __future__ import annotations

import contextlib
import http.server
import multiprocessing
import socket
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

import docker
import docker.errors
import pytest

from pydantic_ai_sandbox.engines.docker.images import (
    base_kind,
    bases,
    building,
    ensure_image,
    ensure_pulled,
    image_name,
    locks,
    pulling,
)
from pydantic_ai_sandbox.errors import EngineUnavailableError, ImageBuildError, RuntimeNotFoundError
from pydantic_ai_sandbox.runtimes import BuildProgress, builtin, builtin_names
from pydantic_ai_sandbox.spec import RuntimeConfig
from tests.docker.busybox import ensure_busybox_image

pytestmark = pytest.mark.docker

MakeRuntime = Callable[..., RuntimeConfig]


def folder(runtime: RuntimeConfig) -> Path:
    assert runtime.dockerfile is not None
    return runtime.dockerfile


@pytest.fixture
def make_runtime(tmp_path: Path, docker_api: docker.APIClient) -> Generator[MakeRuntime]:
    """Makes a runtime of the given instructions on top of busybox; its image is gone afterwards."""
    busybox = ensure_busybox_image(docker_api)

    def make(*instructions: str, name: str = "lab-images") -> RuntimeConfig:
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        (directory / "Dockerfile").write_text("\n".join([f"FROM {busybox}", *instructions, ""]))
        return RuntimeConfig(name=name, dockerfile=directory)

    yield make
    for image in docker_api.images("pydantic-ai-sandbox/lab-images"):
        docker_api.remove_image(image["Id"], force=True)


@pytest.fixture(scope="session")
def minimal(docker_api: docker.APIClient) -> str:
    return ensure_image(docker_api, builtin("python-minimal"))


class Counting:
    """A daemon's client that counts the requests that go through it."""

    def __init__(self, api: docker.APIClient) -> None:
        self.requests: list[str] = []
        self._send = api.send
        api.send = self.send  # type: ignore[method-assign]

    def send(self, request: object, **kwargs: object) -> object:
        self.requests.append(f"{getattr(request, 'method', '')} {getattr(request, 'path_url', '')}")
        return self._send(request, **kwargs)  # type: ignore[arg-type]


# -- Cached by content -------------------------------------------------------------------------------------------------


def test_an_image_that_exists_costs_one_question(docker_api: docker.APIClient, minimal: str) -> None:
    api = docker.APIClient(
        base_url=docker_api.base_url.replace("http+docker://localhost", "unix:///var/run/docker.sock")
    )
    api.version()
    counting = Counting(api)
    assert ensure_image(api, builtin("python-minimal")) == minimal
    api.close()
    assert len(counting.requests) == 1
    assert counting.requests[0].startswith("GET /v")


def test_the_name_follows_the_content(docker_api: docker.APIClient, make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    extra = folder(runtime) / "extra"
    tags = [image_name(runtime)]
    for change in (
        lambda: extra.write_text("a"),
        lambda: extra.write_text("b"),
        lambda: extra.chmod(0o755),
        lambda: extra.rename(folder(runtime) / "other"),
        lambda: (folder(runtime) / "link").symlink_to("other"),
        lambda: make_runtime("ENV A=1"),
    ):
        change()
        tags.append(image_name(runtime))
    assert len(set(tags)) == len(tags)


def test_the_name_does_not_follow_what_the_build_cannot_see(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime()
    (folder(runtime) / ".dockerignore").write_text("# not these\n*.log\n")
    before = image_name(runtime)
    (folder(runtime) / "noise.log").write_text("noise")
    (folder(runtime) / "Dockerfile").touch()
    assert image_name(runtime) == before


@pytest.mark.parametrize("name", ["a..b", "a.", "a-_-b", "x" * 63])
def test_every_runtimes_name_makes_a_valid_image_name(
    docker_api: docker.APIClient, make_runtime: MakeRuntime, name: str
) -> None:
    runtime = make_runtime(name=name)
    image = ensure_image(docker_api, runtime)
    docker_api.remove_image(image)


def test_files_reach_the_build_with_their_executable_bit(
    docker_api: docker.APIClient, make_runtime: MakeRuntime
) -> None:
    runtime = make_runtime(
        "COPY . /opt/lab", "RUN /opt/lab/tools/hello && test -L /opt/lab/link && ! test -x /opt/lab/plain"
    )
    (folder(runtime) / "tools").mkdir()
    hello = folder(runtime) / "tools" / "hello"
    hello.write_text("#!/bin/sh\necho hello\n")
    hello.chmod(0o700)
    (folder(runtime) / "plain").write_text("")
    (folder(runtime) / "link").symlink_to("plain")
    seen: list[BuildProgress] = []
    ensure_image(docker_api, runtime, progress=seen.append)
    assert "hello" in [progress.message for progress in seen]
    counted = [(progress.current, progress.total) for progress in seen if progress.total]
    assert counted == [(number, len(counted)) for number in range(1, len(counted) + 1)]


def _build_in_another_process(directory: str, seen: multiprocessing.Queue[list[str]]) -> None:
    api = docker.from_env().api
    steps: list[str] = []
    ensure_image(
        api, RuntimeConfig(name="lab-images", dockerfile=Path(directory)), progress=lambda p: steps.append(p.step)
    )
    seen.put(steps)


def test_processes_that_want_the_same_image_build_it_once(make_runtime: MakeRuntime) -> None:
    runtime = make_runtime("RUN sleep 2")
    context = multiprocessing.get_context("spawn")
    seen = context.Queue()
    processes = [context.Process(target=_build_in_another_process, args=(str(folder(runtime)), seen)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    steps = [seen.get(timeout=5) for _ in processes]
    assert sum("build" in each for each in steps) == 1
    version = image_name(runtime).rpartition(":")[2]
    assert not list(locks.cache_directory().glob(f"*{version}*"))


# -- Builds that fail ----------------------------------------------------------------------------------------------------


def test_a_failing_build_shows_the_end_of_its_output(docker_api: docker.APIClient, make_runtime: MakeRuntime) -> None:
    runtime = make_runtime("RUN echo the reason; exit 3")
    with pytest.raises(ImageBuildError, match="returned a non-zero code: 3") as caught:
        ensure_image(docker_api, runtime)
    assert "the reason" in caught.value.log_tail.splitlines()
    with pytest.raises(docker.errors.ImageNotFound):
        docker_api.inspect_image(image_name(runtime))


def test_a_dockerfile_that_makes_no_sense_is_named(docker_api: docker.APIClient, make_runtime: MakeRuntime) -> None:
    with pytest.raises(ImageBuildError, match=r"(?i)'lab-images' could not be built.*NONSENSE"):
        ensure_image(docker_api, make_runtime("NONSENSE"))


def test_a_build_that_falls_silent_ends_with_a_message(
    docker_api: docker.APIClient, make_runtime: MakeRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "SILENCE", 2)
    started = time.monotonic()
    with pytest.raises(
        ImageBuildError, match="came to a halt at 'RUN echo waiting; sleep 300': no output for 2 s"
    ) as caught:
        ensure_image(docker_api, make_runtime("RUN echo waiting; sleep 300"))
    assert time.monotonic() - started < 100
    assert caught.value.log_tail.splitlines()[-1] == "waiting"
    assert wait_for(lambda: not [c for c in docker_api.containers() if "sleep 300" in c["Command"]])


def wait_for(condition: Callable[[], bool], seconds: float = 15) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_a_directory_without_a_dockerfile_is_refused(docker_api: docker.APIClient, tmp_path: Path) -> None:
    with pytest.raises(ImageBuildError, match="must hold a Dockerfile"):
        ensure_image(docker_api, RuntimeConfig(name="lab-images", dockerfile=tmp_path))


def test_without_a_daemon_the_error_says_so(tmp_path: Path) -> None:
    api = docker.APIClient(base_url=f"unix://{tmp_path}/nobody.sock", version="1.41")
    with pytest.raises(EngineUnavailableError, match="systemctl start docker"):
        ensure_image(api, builtin("python-minimal"))


# -- Pulling -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def silent_registry() -> Generator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}/lab/silent:1"


@pytest.fixture
def empty_registry() -> Generator[str]:
    """Has no image."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = (200, b"{}") if self.path == "/v2/" else (404, b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 — the name that http.server looks for

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}/lab/nothing:1"
        server.shutdown()
        thread.join()


def test_a_silent_registry_is_given_up(
    docker_api: docker.APIClient, silent_registry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "PULL_SILENCE", 1.0)
    started = time.monotonic()
    with pytest.raises(ImageBuildError, match=r"the registry sent nothing for 1 s. `docker pull .*docker load"):
        ensure_pulled(docker_api, silent_registry)
    assert time.monotonic() - started < 30


def test_an_image_that_the_registry_lacks_does_not_exist(docker_api: docker.APIClient, empty_registry: str) -> None:
    with pytest.raises(RuntimeNotFoundError, match=f"no image '{empty_registry}'.*docker load"):
        ensure_pulled(docker_api, empty_registry)


def test_a_registry_that_cannot_be_reached_is_a_failed_pull(docker_api: docker.APIClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ImageBuildError, match=r"could not be pulled: .*refused.*docker load"):
        ensure_pulled(docker_api, f"127.0.0.1:{port}/lab/nobody:1")


@pytest.mark.parametrize(
    "name", ["", "Nonsense:::", "a b", "../containers/json", "a/../../info", "-x", "x" * 300 + "/"]
)
def test_what_is_no_image_name_never_reaches_the_daemon(docker_api: docker.APIClient, name: str) -> None:
    with pytest.raises(RuntimeNotFoundError, match="not a name for an image"):
        ensure_pulled(docker_api, name)


def test_an_image_that_is_there_is_not_looked_for(docker_api: docker.APIClient, minimal: str) -> None:
    seen: list[BuildProgress] = []
    assert ensure_pulled(docker_api, minimal, progress=seen.append) == minimal
    assert seen == []


# -- The base ------------------------------------------------------------------------------------------------------------


OFFICIAL = "lab.invalid/python:1"


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the choice of a base does to a daemon, in order; each test says what that daemon has and can do."""
    calls: list[str] = []
    monkeypatch.setattr(bases, "one_at_a_time", lambda tag, report: contextlib.nullcontext())
    monkeypatch.setattr(bases, "obstacle", lambda api: None)
    monkeypatch.setattr(bases, "bootstrap_base", lambda *args: calls.append("bootstrap"))
    monkeypatch.setattr(bases, "pull", lambda *args: calls.append("pull"))
    monkeypatch.setattr(bases, "exists", lambda api, image: False)
    return calls


def no_registry(*args: object) -> None:
    raise ImageBuildError("no registry answers")


def choose(docker_api: docker.APIClient) -> tuple[str, str]:
    image, kind = bases.choose_base(docker_api, OFFICIAL, None, lambda runtime: runtime.name, lambda progress: None)
    return image.partition(":")[0], kind


def test_the_official_image_is_used_when_it_is_there(
    docker_api: docker.APIClient, daemon: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "exists", lambda api, image: image == OFFICIAL)
    assert choose(docker_api) == ("lab.invalid/python", "official")
    assert daemon == []


def test_otherwise_it_is_pulled(docker_api: docker.APIClient, daemon: list[str]) -> None:
    assert choose(docker_api) == ("lab.invalid/python", "official")
    assert daemon == ["pull"]


def test_otherwise_a_base_that_was_made_before_is_used(
    docker_api: docker.APIClient, daemon: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "pull", no_registry)
    monkeypatch.setattr(bases, "exists", lambda api, image: image != OFFICIAL)
    assert choose(docker_api) == ("pydantic-ai-sandbox/base", "bootstrapped")
    assert daemon == []


def test_otherwise_one_is_made(
    docker_api: docker.APIClient, daemon: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "pull", no_registry)
    assert choose(docker_api) == ("pydantic-ai-sandbox/base", "bootstrapped")
    assert daemon == ["bootstrap"]


def test_otherwise_the_error_names_both_ways_out(
    docker_api: docker.APIClient, daemon: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "pull", no_registry)
    monkeypatch.setattr(bases, "obstacle", lambda api: "install this and that")
    with pytest.raises(ImageBuildError, match=r"no registry answers\. Otherwise: install this and that"):
        choose(docker_api)
    assert daemon == []


# -- The built-in runtimes -----------------------------------------------------------------------------------------------


def test_an_unknown_runtime_is_answered_with_the_known_ones() -> None:
    assert "python-minimal" in builtin_names()
    with pytest.raises(RuntimeNotFoundError, match=r"'nosuch'; there are: .*python-minimal"):
        builtin("nosuch")


@pytest.mark.parametrize("name", ["..", "base", "runner", "python-minimal/", ""])
def test_only_image_definitions_are_runtimes(name: str) -> None:
    with pytest.raises(RuntimeNotFoundError):
        builtin(name)


def test_the_image_says_what_it_is_based_on(docker_api: docker.APIClient, minimal: str) -> None:
    assert base_kind(docker_api, minimal) in ("official", "bootstrapped")
    assert base_kind(docker_api, "pydantic-ai-sandbox/nosuch:1") is None


def test_its_labels_do_not_make_its_containers_ours(docker_api: docker.APIClient, minimal: str) -> None:
    labels = docker_api.inspect_image(minimal)["Config"]["Labels"]
    assert "pydantic-ai-sandbox.managed" not in labels


PROBE = """
set -eu
test "$(id -u):$(id -g)" = 10001:10001
test "$(pwd)" = /workspace
touch /workspace/file "$HOME/file"
test "$HOME" = /home/sandbox
python -c 'import sys; print(sys.version)'
test "$(python -c 'import sys; print(sys.version)')" = "$(python3 -c 'import sys; print(sys.version)')"
test "$(python -c 'import ssl; print(ssl.create_default_context().cert_store_stats()["x509_ca"] > 50)')" = True
test -z "$(find / -xdev -type f -perm /6000 2>/dev/null)"
test ! -e "$HOME/.cache"
"""


def test_python_minimal_is_what_it_promises(docker_api: docker.APIClient, minimal: str) -> None:
    container = docker_api.create_container(minimal, ["sh", "-c", PROBE], network_disabled=True)["Id"]
    try:
        docker_api.start(container)
        result = docker_api.wait(container, timeout=30)
        assert result["StatusCode"] == 0, docker_api.logs(container).decode()
        hosts = b"".join(docker_api.get_archive(container, "/etc")[0])
        assert b"ip6-allrouters" not in hosts
    finally:
        docker_api.remove_container(container, force=True)
