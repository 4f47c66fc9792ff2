"""A tree is measured as the disk sees it."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from pydantic_ai_sandbox.trees import TreeUsage, measure, measuring
from tests.trees.making import make_deep, make_odd, make_special, swapping


def du(path: Path) -> int:
    """What `du` says, in bytes."""
    return int(subprocess.check_output(["du", "-s", "-B1", "-x", path]).split()[0])


class TestMeasure:
    def test_it_says_what_du_says_and_counts_every_entry(self, place: Path) -> None:
        empty = measure(place)
        assert empty == TreeUsage(bytes=du(place), files=0)
        make_odd(place)
        special = make_special(place)
        (place / "large").write_bytes(bytes(3_000_000))
        os.link(place / "large", place / "again")
        (place / "link").symlink_to("/usr")
        (place / "long").symlink_to("x" * 300)
        usage = measure(place)
        assert usage == TreeUsage(bytes=du(place), files=20 + len(special) + 4)
        assert 3_000_000 < usage.bytes < 6_000_000

    def test_a_hole_occupies_nothing(self, place: Path) -> None:
        with open(place / "sparse", "wb") as file:
            file.truncate(1 << 40)
        assert measure(place).bytes < 1 << 20

    def test_a_deep_tree_is_measured(self, place: Path) -> None:
        make_deep(place, 5000)
        assert measure(place).files == 5001

    def test_files_with_several_names_beyond_what_is_remembered_count_more_than_once(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(measuring, "_MOST_LINKED", 1)
        for name in "ab":
            (place / name).write_bytes(bytes(4096))
            os.link(place / name, place / f"{name}-again")
        assert measure(place).bytes == du(place) + 4096

    def test_a_root_that_is_missing_or_a_link_is_an_error(self, place: Path) -> None:
        (place / "link").symlink_to("/usr")
        for name in ("missing", "link"):
            with pytest.raises(OSError, match=r"No such file|Not a directory"):
                measure(place / name)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_while_a_directory_is_swapped_with_a_link_nothing_outside_is_counted(place: Path) -> None:
    root = place / "root"
    (root / "a").mkdir(parents=True)
    (place / "secret").mkdir()
    (place / "secret/large").write_bytes(bytes(10_000_000))
    (root / "swapped").symlink_to("../secret")
    with swapping(root / "a", root / "swapped"):
        for _ in range(2000):
            usage = measure(root)
            # A directory that is renamed can be seen under both names, or under none.
            assert usage.files <= 3
            assert usage.bytes < 100_000
    assert stat.S_ISDIR((root / "a").lstat().st_mode) or (root / "a").is_symlink()
