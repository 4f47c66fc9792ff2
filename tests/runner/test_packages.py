"""The runner's own tests, which are Go's, as a part of all tests: beside the others, since they mostly wait."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNNER = ROOT / "runtimes" / "runner"
PACKAGES = sorted({path.parent.relative_to(RUNNER).as_posix() for path in RUNNER.rglob("*_test.go")})


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("package", PACKAGES)
def test_the_tests_of_a_package_pass(package: str) -> None:
    command = ["make", "test-go", f"PACKAGES=./{package}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
