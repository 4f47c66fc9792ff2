"""A container is ended and removed also when the daemon has to be told more than once."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import docker.errors
import pytest
import requests

from pydantic_ai_sandbox import DockerEngine, DockerSandbox
from pydantic_ai_sandbox.engines.docker import ending
from pydantic_ai_sandbox.errors import EngineError

pytestmark = pytest.mark.docker

ZOMBIE = "Could not kill running container, cannot remove - PID 4711 is zombie and can not be killed"
"""What Docker says of a container whose first process has ended but is not reaped, as on a machine that is too busy."""


class Failing:
    """A call to the daemon that fails some times before it is let through."""

    def __init__(self, call: Callable[..., Any], times: int) -> None:
        self._call = call
        self.left = times

    def __call__(self, *what: Any, **how: Any) -> Any:
        if self.left:
            self.left -= 1
            response = requests.Response()
            response.status_code = 500
            raise docker.errors.APIError("500 Server Error", response, ZOMBIE)
        return self._call(*what, **how)


@pytest.fixture
def engine() -> Generator[DockerEngine]:
    """One whose calls of the daemon are nobody else's."""
    engine = DockerEngine()
    yield engine
    engine.close()


@pytest.fixture
async def id(sandbox: DockerSandbox) -> str:
    """Of a sandbox's container, which runs."""
    await sandbox.run(["true"])
    assert sandbox.ref is not None
    return sandbox.ref.id


async def test_what_the_daemon_cannot_kill_yet_is_removed_a_little_later(
    engine: DockerEngine, sandbox: DockerSandbox, id: str, docker_api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing(engine.api().remove_container, 3)
    monkeypatch.setattr(engine.api(), "remove_container", failing)
    await sandbox.destroy()
    assert failing.left == 0
    assert id not in {found["Id"] for found in docker_api.containers(all=True)}


async def test_what_the_daemon_cannot_kill_yet_is_stopped_a_little_later(
    engine: DockerEngine, id: str, docker_api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing(engine.api().kill, 3)
    monkeypatch.setattr(engine.api(), "kill", failing)
    engine.stop(id)
    assert failing.left == 0
    assert id not in {found["Id"] for found in docker_api.containers()}
    # What has ended already is fine.
    engine.stop(id)


async def test_what_the_daemon_can_never_kill_is_told(
    engine: DockerEngine, id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "_PATIENCE", 0.5)
    failing = Failing(engine.api().remove_container, 10_000)
    monkeypatch.setattr(engine.api(), "remove_container", failing)
    with pytest.raises(EngineError, match="is zombie and can not be killed"):
        engine.remove(id)
    assert failing.left < 9_999
    failing.left = 0
    engine.remove(id)
