"""The command line does what its help says, for people and for logs."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import docker
import pytest

from pydantic_ai_sandbox.engines.docker.images import ensure_image
from pydantic_ai_sandbox.runtimes import builtin
from tests.docker.busybox import ensure_busybox_image

SCRIPT = Path(sys.executable).with_name("pydantic-ai-sandbox")


def call(*arguments: str, **environment: str) -> tuple[int, str, str]:
    command = [str(SCRIPT), *arguments]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=170, env={**os.environ, **environment}
    )
    return result.returncode, result.stdout, result.stderr


def on_a_terminal(*arguments: str) -> str:
    reader, writer = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen([str(SCRIPT), *arguments], stdout=writer, stderr=writer, env=environment) as process:
        os.close(writer)
        shown = b""
        while True:
            try:
                piece = os.read(reader, 65_536)
            except OSError:
                break
            if not piece:
                break
            shown += piece
    os.close(reader)
    assert process.returncode == 0
    return shown.decode()


@pytest.fixture
def folder(tmp_path: Path, docker_api: docker.APIClient) -> Generator[Path]:
    """A runtime of one's own that says something hostile while it is built."""
    busybox = ensure_busybox_image(docker_api)
    directory = tmp_path / "Lab CLI"
    directory.mkdir()
    (directory / "Dockerfile").write_text(
        f"FROM {busybox}\nRUN printf 'said\\033]0;title\\007\\n[red]plain[/red]\\n' && sleep 1\n"
    )
    yield directory
    for image in docker_api.images("pydantic-ai-sandbox/lab-cli"):
        docker_api.remove_image(image["Id"], force=True)


def test_help_lists_the_commands_and_how_to_complete_them() -> None:
    status, out, _ = call("--help")
    assert status == 0
    for word in ("build", "images", "remove", "doctor", "--install-completion"):
        assert word in out


@pytest.mark.docker
def test_runtimes_complete() -> None:
    variables = {
        "_PYDANTIC_AI_SANDBOX_COMPLETE": "complete_bash",
        "COMP_WORDS": "pydantic-ai-sandbox build py",
        "COMP_CWORD": "2",
    }
    _, out, _ = call(**variables)
    assert "python-minimal" in out.split()


@pytest.mark.docker
def test_an_image_that_is_there_is_said_to_be(docker_api: docker.APIClient) -> None:
    image = ensure_image(docker_api, builtin("python-minimal"))
    status, out, err = call("build", "python-minimal")
    assert (status, err) == (0, "")
    assert re.fullmatch(rf"python-minimal: {image}, \w+ base, [\d.]+ MiB, there already\n", out)
    status, out, err = call("images")
    assert (status, err) == (0, "")
    assert image in out
    assert "together" in out


@pytest.mark.docker
def test_a_log_gets_a_line_for_each_thing_that_matters(folder: Path) -> None:
    status, out, err = call("build", str(folder))
    assert (status, err) == (0, "")
    *progress, result = out.splitlines()
    assert progress[0].strip() == "Building the runtime lab-cli"
    assert len(progress) <= 3
    assert re.fullmatch(r"lab-cli: pydantic-ai-sandbox/lab-cli:\w+(, \w+ base)?, [\d.]+ MiB, ready in [\d.]+ s", result)


@pytest.mark.docker
def test_a_terminal_gets_a_bar_and_nothing_raw(folder: Path) -> None:
    shown = on_a_terminal("build", str(folder))
    assert "[red]plain[/red]" in shown
    assert re.search(r"[━╸╺]", shown)
    assert "\x1b]0;" not in shown
    assert "\x07" not in shown


@pytest.mark.docker
def test_a_failing_build_ends_with_its_output_and_the_step(folder: Path) -> None:
    with (folder / "Dockerfile").open("a") as dockerfile:
        dockerfile.write("RUN echo the reason; exit 4\n")
    status, _, err = call("build", str(folder))
    assert status == 1
    assert "the reason" in err.splitlines()
    assert "error: the runtime 'lab-cli' could not be built at 'RUN echo the reason; exit 4'" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert "\x1b" not in err


def test_an_unknown_runtime_is_answered_with_the_known_ones() -> None:
    status, _, err = call("build", "nosuch")
    assert status == 1
    assert "there are: " in err


def test_without_a_daemon_it_says_what_to_do() -> None:
    status, _, err = call("images", DOCKER_HOST="tcp://127.0.0.1:1")
    assert status == 1
    assert "start it" in err


# --- doctor


@pytest.mark.docker
def test_the_doctor_shows_every_check_and_ends_well(docker_api: docker.APIClient) -> None:
    ensure_image(docker_api, builtin("python-minimal"))
    status, out, err = call("doctor")
    assert (status, err) == (0, "")
    assert "fail" not in out
    for name in ("engine", "seccomp", "capabilities", "network", "memory limit", "runner", "image"):
        assert re.search(rf"^{name} +ok ", out, re.MULTILINE), name


@pytest.mark.docker
def test_the_doctor_writes_json_for_scripts(docker_api: docker.APIClient, tmp_path: Path) -> None:
    ensure_image(docker_api, builtin("python-minimal"))
    status, out, _ = call("doctor", "--json", "--workspace-root", str(tmp_path))
    found = json.loads(out)
    assert status == 0
    assert found["verdict"] in ("ok", "skipped", "warn")
    checks = {check["name"]: check for check in found["checks"]}
    assert set(checks["disk quota"]) == {"name", "verdict", "seen", "remedy"}
    assert checks["disk quota"]["verdict"] in ("ok", "warn")


@pytest.mark.docker
def test_the_doctor_ends_with_1_when_something_fails(docker_api: docker.APIClient) -> None:
    ensure_image(docker_api, builtin("python-minimal"))
    status, out, err = call("doctor", "--oci-runtime", "nosuch[/red]")
    assert (status, err) == (1, "")
    assert re.search(r"^OCI runtime +fail .*nosuch\[/red\]", out, re.MULTILINE)


def test_the_doctor_ends_with_2_when_there_is_nothing_to_examine() -> None:
    status, out, err = call("doctor", "--json", DOCKER_HOST="tcp://127.0.0.1:1")
    assert (status, out) == (2, "")
    assert "start it" in err
    assert "Traceback" not in err


@pytest.mark.docker
def test_the_doctor_cannot_examine_an_image_that_is_not_there() -> None:
    status, _, err = call("doctor", "--image", "127.0.0.1:1/no/such:image")
    assert status == 2
    assert "127.0.0.1:1/no/such" in err
    assert "Traceback" not in err


def test_nothing_is_removed_without_a_yes() -> None:
    result = subprocess.run([str(SCRIPT), "remove"], input="n\n", capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "Remove all sandboxes" in result.stdout + result.stderr


def test_without_its_packages_it_names_the_extra(tmp_path: Path) -> None:
    program = "import sys; sys.modules['typer'] = None; from pydantic_ai_sandbox.__main__ import main; main()"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr == "the command line needs more packages: pip install 'pydantic-ai-sandbox[cli]'\n"
