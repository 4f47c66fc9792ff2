"""Every folder of a built-in runtime follows the rules that make it work everywhere and the same each time."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pydantic_ai_sandbox.runtimes import builtin, builtin_names

ROOT = Path(__file__).parents[2]
NAMES = builtin_names()


def folder(name: str) -> Path:
    path = builtin(name).dockerfile
    assert path is not None
    return path


@pytest.mark.parametrize("name", NAMES)
def test_its_base_can_be_replaced_and_is_pinned(name: str) -> None:
    lines = (folder(name) / "Dockerfile").read_text().splitlines()
    code = [line for line in lines if line and not line.startswith("#")]
    assert re.fullmatch(r"ARG BASE_IMAGE=(python:3\.12-slim|node:20-slim)", code[0])
    assert code[1] == "FROM ${BASE_IMAGE}"


@pytest.mark.parametrize("name", [name for name in NAMES if (folder(name) / "requirements.txt").exists()])
def test_its_python_packages_are_pinned_with_their_hashes(name: str) -> None:
    requirements = re.split(r"\n(?=\S)", (folder(name) / "requirements.txt").read_text().strip())
    for requirement in requirements:
        assert re.match(r"[\w.-]+==[\w.]+ \\\n    --hash=sha256:[0-9a-f]{64}", requirement), requirement[:80]
    locked = {requirement.partition("==")[0] for requirement in requirements}
    assert set((folder(name) / "requirements.in").read_text().split()) <= locked
    assert "--require-hashes" in (folder(name) / "Dockerfile").read_text()


@pytest.mark.parametrize("name", [name for name in NAMES if (folder(name) / "package.json").exists()])
def test_its_node_packages_are_pinned_with_their_hashes(name: str) -> None:
    wanted = json.loads((folder(name) / "package.json").read_text())["dependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in wanted.values())
    locked = json.loads((folder(name) / "package-lock.json").read_text())["packages"]
    assert all(locked[f"node_modules/{package}"]["version"] == version for package, version in wanted.items())
    assert all(package.get("integrity", "").startswith("sha512-") for path, package in locked.items() if path)
    # Where they were downloaded from is this host's affair.
    assert not any("resolved" in package for package in locked.values())
    assert "npm ci" in (folder(name) / "Dockerfile").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_the_documentation_lists_it(name: str) -> None:
    assert f"`{name}/`" in (ROOT / "runtimes/README.md").read_text()
    assert f"`{name}`" in (ROOT / "README.md").read_text()
