"""For all tests: one event loop implementation, visible skips where there is no Docker, and nothing left behind."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import docker
import pytest
from _pytest.terminal import TerminalReporter
from hypothesis import HealthCheck, settings

from pydantic_ai_sandbox.engines.docker.client import connect_daemon
from pydantic_ai_sandbox.errors import EngineUnavailableError
from tests import leaks

# How fast an example is says nothing on a machine that others use too.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

_BEFORE = pytest.StashKey[frozenset[str]]()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The package is asyncio's; Pydantic AI's agents are too."""
    return "asyncio"


@pytest.fixture(scope="session")
def docker_api() -> Generator[docker.APIClient]:
    """A client of the daemon that tests marked `docker` use."""
    api = connect_daemon(None, 60)
    yield api
    api.close()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    from tests.scheduling import Scheduling

    return Scheduling(config, log)


def pytest_sessionstart(session: pytest.Session) -> None:
    # A worker of pytest-xdist is a part of a run.
    if not hasattr(session.config, "workerinput"):
        session.config.stash[_BEFORE] = leaks.begin_run()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("docker")]
    reason = _no_docker() if marked else None
    if reason:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))


def _no_docker() -> str | None:
    try:
        connect_daemon(None, 10).close()
    except EngineUnavailableError as error:
        return f"no Docker daemon answers (`make docker`): {error}"
    return None


# After pytest-xdist has ended its workers, whose fixtures may hold things until then.
@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when something of ours is left, in its closing line too."""
    before = session.config.stash.get(_BEFORE, None)
    if before is None or session.config.option.collectonly:
        return
    left = leaks.leaked(before)
    if not left:
        return
    session.exitstatus = pytest.ExitCode.TESTS_FAILED
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if isinstance(reporter, TerminalReporter):
        reporter.stats.setdefault("error", []).append(_report(left))


def _report(left: list[str]) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid="tests/leaks.py",
        location=("tests/leaks.py", None, "nothing is left behind"),
        keywords={},
        outcome="failed",
        longrepr="The tests left behind:\n" + "\n".join(f"  {line}" for line in left),
        when="teardown",
    )
