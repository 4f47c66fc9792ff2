"""Each example does what it says, by the command that it names."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.docker

EXAMPLES = Path(__file__).parents[2] / "examples"


def start(name: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(EXAMPLES / name), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "110", **environment},
    )


def run(name: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
    process = start(name, *arguments, **environment)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_every_example_is_tested_here() -> None:
    tested = {"quickstart.py", "deps_backend.py", "data_analysis.py"}
    assert {path.name for path in EXAMPLES.glob("*.py")} == tested


def test_quickstart_repairs_a_package_and_leaves_nothing(docker_api: Any) -> None:
    status, out, err = run("quickstart.py")
    assert (status, err) == (0, "")
    assert "this is scripted" in out
    calls = [line.split()[1] for line in out.splitlines() if line.startswith("→ ")]
    assert calls == ["run", "grep", "read", "edit", "run"]
    before, agent, after = out.index("→ red ("), out.index("The agent at work"), out.rindex("→ green (")
    assert out.index("→ green (") < before < agent < after
    assert "byte for byte what it was at first" in out
    assert "uid 10001 with 0 capabilities; writing to /usr: Read-only file system" in out
    assert "none; interfaces: lo; connecting to 192.0.2.1: Network is unreachable" in out
    assert "\x1b" not in out
    (name,) = set(re.findall(r"\bsandbox-[0-9a-f]{12}\b", out))
    assert f"knows no container {name} any more" in out
    assert docker_api.containers(all=True, filters={"name": name}) == []


def test_quickstart_works_where_no_python_came_with_its_tests() -> None:
    status, out, err = run("quickstart.py", "--package", "statistics")
    assert (status, err) == (0, "")
    assert "python -m doctest statistics.py → red" in out
    assert "byte for byte what it was at first" in out


def test_nothing_reaches_the_terminal_raw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    screen: Any = importlib.import_module("terminal.screen")
    hostile = "\x1b]0;title\x07 \x9b2J \r over \u202e turned [bold]kept[/bold]\nnext\ttab é 漢"
    shown = screen.printable(hostile)
    assert shown == r"\x1b]0;title\x07 \x9b2J \r over \u202e turned [bold]kept[/bold]" + "\nnext    tab é 漢"


@pytest.mark.parametrize(
    ("model", "complaint"),
    [("openai:gpt-5", "OPENAI_API_KEY"), ("no-such-provider:x", "Unknown model"), ("nonsense", "Unknown model")],
)
def test_quickstart_says_what_a_model_needs_before_it_makes_anything(model: str, complaint: str) -> None:
    status, out, err = run("quickstart.py", "--model", model, OPENAI_API_KEY="")
    assert (status, err) == (2, "")
    assert complaint in out
    assert "is up" not in out


CALLS = [
    ("run", {"command": "python -m doctest statistics.py"}),
    ("read", {"path": "no-such-file"}),
    ("edit", {"path": "statistics.py", "old_string": "no such text", "new_string": "x"}),
    (
        "edit",
        {"path": "statistics.py", "old_string": "(data[i] + data[i + 1]) / 2", "new_string": "sum(data[i-1:i+1])/2"},
    ),
]


class Endpoint(BaseHTTPRequestHandler):
    """A model behind HTTP that makes those calls."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        done = sum(message["role"] == "tool" for message in request["messages"])
        message: dict[str, Any] = {"role": "assistant", "content": "I say \x1b[31mdone\x1b[0m."}
        if done < len(CALLS):
            name, arguments = CALLS[done]
            function = {"name": name, "arguments": json.dumps(arguments)}
            message = {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": f"call-{done}", "type": "function", "function": function}],
            }
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if done < len(CALLS) else "stop"}
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: this is not the test's output."""


@pytest.fixture
def endpoint() -> Generator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def test_quickstart_with_a_model_shows_its_mistakes_too_and_judges_by_the_tests(endpoint: str) -> None:
    arguments = ["--model", "openai-chat:m", "--package", "statistics"]
    status, out, err = run("quickstart.py", *arguments, OPENAI_API_KEY="none", OPENAI_BASE_URL=endpoint)
    assert (status, err) == (0, "")
    assert "scripted" not in out
    calls = [line.split()[1] for line in out.splitlines() if line.startswith("→ ")]
    assert calls == [name for name, _ in CALLS]
    assert "no-such-file" in out
    assert "found 0" in out
    assert r"I say \x1b[31mdone\x1b[0m." in out
    assert "other than it was at first" in out


def test_quickstart_removes_the_sandbox_when_the_model_cannot_be_reached() -> None:
    unreachable = {"OPENAI_API_KEY": "none", "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    status, out, err = run("quickstart.py", "--model", "openai:gpt-5", **unreachable)
    assert (status, err) == (1, "")
    assert "Failed" in out
    assert "knows no container" in out


def test_quickstart_says_when_there_is_no_docker() -> None:
    status, out, err = run("quickstart.py", DOCKER_HOST="tcp://127.0.0.1:1")
    assert (status, err) == (1, "")
    assert "EngineUnavailableError" in out
    assert "start it" in out


@pytest.fixture
def interruptible() -> Generator[None]:
    """Children that Ctrl-C reaches, also when this process was started in the background and ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_quickstart_and_removes_the_sandbox(docker_api: Any) -> None:
    process = start("quickstart.py", PYTHONUNBUFFERED="1")
    assert process.stdout is not None
    read = ""
    for line in process.stdout:
        read += line
        if "is up" in line:
            break
    (name,) = set(re.findall(r"\bsandbox-[0-9a-f]{12}\b", read))
    assert docker_api.containers(filters={"name": name})
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert f"knows no container {name} any more" in out
    assert docker_api.containers(all=True, filters={"name": name}) == []


def test_deps_backend_is_a_plain_script() -> None:
    status, out, err = run("deps_backend.py")
    assert (status, err) == (0, "")
    assert out.startswith("5050\n[exit 0 · ")


def test_data_analysis_draws_a_figure_that_the_model_was_shown(tmp_path: Path, docker_api: Any) -> None:
    figure = tmp_path / "figure.png"
    status, out, err = run("data_analysis.py", "--output", str(figure))
    assert (status, err) == (0, "")
    assert "this is scripted" in out
    content = figure.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    # The model says what it was shown, from the messages that it was sent.
    said = re.sub(r"\s+", " ", out)
    assert f"The plot I was shown, {len(content):,} bytes of image/png" in said
    assert "Petal length tells the species apart best (the species differ 23.6 times" in said
    assert re.search(r"\[ok · [\d.]+ m?s · 1 image · In \[3\]\]", out)
    (name,) = set(re.findall(r"\bsandbox-[0-9a-f]{12}\b", out))
    assert docker_api.containers(all=True, filters={"name": name}) == []


def test_data_analysis_says_when_there_is_no_docker(tmp_path: Path) -> None:
    status, out, err = run("data_analysis.py", "--output", str(tmp_path / "x.png"), DOCKER_HOST="tcp://127.0.0.1:1")
    assert (status, err) == (1, "")
    assert "EngineUnavailableError" in out
    assert not (tmp_path / "x.png").exists()
