"""Both sides of the attacks, how often and in what company they run, and what becomes of their outcomes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from _pytest.terminal import TerminalReporter

from pydantic_ai_sandbox import DockerEngine, DockerSandbox, ResourceLimits
from pydantic_ai_sandbox.trees import remove_tree
from tests.attacks import table
from tests.attacks.lab import IDLE, Lab, Plains, naive_image

Outcomes = dict[str, tuple[bool, bool]]

_OUTCOMES = pytest.StashKey[Outcomes]()
_NUMBERS = pytest.StashKey[list[str]]()

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
    config.stash[_OUTCOMES] = {}
    config.stash[_NUMBERS] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    runs: int = metafunc.config.getoption("attack_runs", 1) or 1
    if "attempt" in metafunc.fixturenames:
        metafunc.parametrize("attempt", range(1, runs + 1), ids=lambda number: f"run {number}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if not session.config.getoption("attack_table", False):
        return
    missing = table.write(session.config.stash[_OUTCOMES])
    if missing:
        session.config.stash[_NUMBERS].append(f"the table is left as it was: {', '.join(missing)} did not end")


def pytest_terminal_summary(terminalreporter: TerminalReporter, config: pytest.Config) -> None:
    numbers, outcomes = config.stash[_NUMBERS], config.stash[_OUTCOMES]
    if outcomes:
        there, here = (sum(won) for won in zip(*outcomes.values(), strict=True))
        numbers.append(f"{len(outcomes)} attacks: {there} succeed on the naive side, {here} here")
    if numbers:
        terminalreporter.section("attacks")
        for line in numbers:
            terminalreporter.write_line(line)


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes lines with measured numbers, which are shown at the end of the run."""
    return request.config.stash[_NUMBERS].append


@pytest.fixture
def outcomes(request: pytest.FixtureRequest) -> Outcomes:
    """Where tests put how attacks ended: on the naive side, on ours."""
    return request.config.stash[_OUTCOMES]


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
    count = BUSY_SANDBOXES if request.config.getoption("busy", False) else 0
    async with AsyncExitStack() as stack:
        for _ in range(count):
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
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    assert all_plains.shared
    assert all_plains.unconfined
    before = len(all_plains)
    async with AsyncExitStack() as stack:
        yield Lab(tmp_path, all_plains, shared_sandbox, stack)
    all_plains.remove(before)
    # What pytest would delete by itself may be what no ordinary deleting can cope with.
    for path in tmp_path.iterdir():
        remove_tree(tmp_path, path.name)
