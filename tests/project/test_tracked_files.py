"""No file in the repository knows the machine it was written on, or which mirror that used."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# In pieces, or this file would be the one that names them.
REGISTRIES = [
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("npmjs", "org"),
    ("npmjs", "com"),
    ("yarnpkg", "com"),
    ("deb", "debian", "org"),
    ("snapshot", "debian", "org"),
    ("proxy", "golang", "org"),
    ("sum", "golang", "org"),
]
DEVELOPER_PATHS = [
    "/" + "Users/",
    "/" + "work/main",
    "/" + "work/shared",
    "/" + "tmp/lab",
    r"/" + r"home/(?!sandbox\b)\w+/",
    r"/" + r"root/\.(?!(?:cache|npm)\b)",
]


def tracked_files() -> list[Path]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_names_a_registry_host_or_a_developers_path() -> None:
    hosts = [re.escape(".".join(parts)) for parts in REGISTRIES]
    forbidden = re.compile("|".join([*hosts, *DEVELOPER_PATHS]))
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in tracked_files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if forbidden.search(line)
    ]
    assert not found, "\n".join(found)


def test_the_runners_binaries_are_not_committed() -> None:
    assert [path for path in tracked_files() if path.stat().st_size > 500_000 or "_runner" in path.parts] == []
