"""Both sides of the attacks, how often and in what company they run, and what becomes of their outcomes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest

from pydantic_ai_sandbox import DockerEngine, DockerSandbox, ResourceLimits
from pydantic_ai_sandbox.trees import remove_tree
from tests.attacks.lab import IDLE, Lab, Plains, naive_image
from tests.attacks.results import NUMBER, OUTCOME, Results

BUSY_SANDBOXES = 4

_BUSINESS = (
    "while :; do python3 -c 'sum(range(3_000_000))'; find / -xdev > /dev/null 2>&1; head -c 8M /dev/urandom > f; done"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("attacks")
    group.addoption("--attack-runs", type=int, default=1, help="how often to try every attack")
    group.addoption("--busy", action="store_true", help="keep other sandboxes busy meanwhile")
    group.addoption("--attack-table", action="store_true", help="write the outcomes into SECURITY.md")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Results(config))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    runs: int = metafunc.config.getoption("attack_runs", 1) or 1
    if "attempt" in metafunc.fixturenames:
        metafunc.parametrize("attempt", range(1, runs + 1), ids=lambda number: f"run {number}")


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Takes lines with measured numbers, which are shown at the end of the run."""
    return partial(record_property, NUMBER)


@pytest.fixture
def ended(record_property: Callable[[str, object], None]) -> Callable[[str, bool, bool], None]:
    """Takes an attack's name, and whether it succeeded on the naive side and here."""
    return lambda attack, naive, ours: record_property(OUTCOME, (attack, naive, ours))


@pytest.fixture(scope="session")
def engine() -> DockerEngine:
    return DockerEngine()


@pytest.fixture(scope="session")
def all_plains(engine: DockerEngine) -> Generator[Plains]:
    plains = Plains(naive_image(engine))
    yield plains
    plains.remove()
    plains.client.close()


@pytest.fixture(scope="module")
async def shared_sandbox(engine: DockerEngine) -> AsyncGenerator[DockerSandbox]:
    """For attacks that do not harm it, or should not."""
    async with DockerSandbox(engine=engine, idle_timeout=IDLE) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
async def busy_sandboxes(request: pytest.FixtureRequest) -> AsyncGenerator[None]:
    """With `--busy`, sandboxes that work for their living while others are attacked."""
    wanted = BUSY_SANDBOXES if request.config.getoption("busy", False) else 0
    # Workers of pytest-xdist share that work.
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    async with AsyncExitStack() as stack:
        for _ in range(number, wanted, workers):
            limits = ResourceLimits(cpus=0.3)
            sandbox = await stack.enter_async_context(DockerSandbox(idle_timeout=IDLE, limits=limits))
            await sandbox.start_job(_BUSINESS, shell=True)
        yield


@pytest.fixture
async def lab(
    tmp_path: Path, all_plains: Plains, shared_sandbox: DockerSandbox, busy_sandboxes: None
) -> AsyncGenerator[Lab]:
    """The place of one attack."""
    # Docker and other users walk through it.
    for folder in (tmp_path, *tmp_path.parents):
        if Path(tempfile.gettempdir()).resolve() in folder.parents:
            folder.chmod(0o755)
    all_plains.refresh()
    # So it is there also for who only looks at its container, and never idle for long.
    await shared_sandbox.run(["true"])
    before = len(all_plains)
    async with AsyncExitStack() as stack:
        yield Lab(tmp_path, all_plains, shared_sandbox, stack)
        # First, since an image that a container uses stays without a name.
        all_plains.remove(before)
    # What pytest would delete by itself may be what no ordinary deleting can cope with.
    for path in tmp_path.iterdir():
        remove_tree(tmp_path, path.name)
