"""The Makefile is the only list of commands, and what the documentation says exists."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "SECURITY.md", "CHANGELOG.md", "runtimes/README.md")


def targets() -> set[str]:
    return set(re.findall(r"^\.PHONY: ([a-z-]+)$", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_help_is_the_default_and_names_every_target() -> None:
    listing = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = {line.split()[0] for line in listing.splitlines()}
    assert listed == targets()
    assert all(len(line.split()) > 1 for line in listing.splitlines())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_commands_in_the_documentation_exist(name: str) -> None:
    mentioned = set(re.findall(r"(?:^|[`$ ])make ([a-z][a-z-]*)[`\s]", code(name), re.MULTILINE))
    assert mentioned <= targets()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_files_named_in_the_documentation_exist(name: str) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)(?:#[^)]*)?\)", (ROOT / name).read_text())
    missing = [link for link in links if not (ROOT / name).parent.joinpath(link).exists()]
    assert not missing


@pytest.mark.parametrize("name", DOCUMENTS)
def test_python_in_the_documentation_compiles(name: str) -> None:
    for block in re.findall(r"^```python\n(.*?)^```$", (ROOT / name).read_text(), re.MULTILINE | re.DOTALL):
        compile(block, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def code(name: str) -> str:
    """The code blocks and code spans of a document, one a line."""
    text = (ROOT / name).read_text()
    blocks = re.findall(r"^```.*?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return "\n".join([*blocks, *re.findall(r"`[^`\n]+`", text)]) + "\n"


def test_continuous_integration_calls_make() -> None:
    commands = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line.startswith("make ")]
    assert {"make -j2 --output-sync lint typecheck", "make test", "make test-attacks REST=1"} == set(commands)
    called = {word for line in commands for word in line.split()[1:] if not word.startswith("-") and "=" not in word}
    assert called <= targets()
