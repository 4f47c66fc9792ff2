"""Renaming happens in one step, or not at all."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pydantic_ai_sandbox.trees import exchange, rename_new, renaming


class TestRenameNew:
    def test_it_renames_directories_and_files_also_into_another_directory(self, place: Path) -> None:
        (place / "a").mkdir()
        (place / "a/f").write_text("x")
        (place / "other").mkdir()
        rename_new(place / "a", place / "other/b")
        rename_new(place / "other/b/f", place / "g")
        assert sorted(os.listdir(place)) == ["g", "other"]
        assert (place / "g").read_text() == "x"

    @pytest.mark.parametrize("kind", ["empty directory", "file", "dangling link"])
    def test_whatever_exists_is_not_replaced(self, place: Path, kind: str) -> None:
        (place / "a").mkdir()
        target = place / "b"
        if kind == "empty directory":
            target.mkdir()
        elif kind == "file":
            target.write_text("kept")
        else:
            target.symlink_to("nowhere")
        inode = target.lstat().st_ino
        with pytest.raises(FileExistsError) as caught:
            rename_new(place / "a", target)
        assert (caught.value.filename, caught.value.filename2) == (str(place / "a"), str(target))
        assert target.lstat().st_ino == inode
        assert (place / "a").is_dir()

    def test_a_source_that_is_missing_is_an_error(self, place: Path) -> None:
        with pytest.raises(FileNotFoundError):
            rename_new(place / "a", place / "b")

    def test_of_many_at_once_one_succeeds(self, place: Path) -> None:
        for number in range(8):
            (place / str(number)).mkdir()

        def claim(number: int) -> bool:
            try:
                rename_new(place / str(number), place / "claimed")
            except FileExistsError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(claim, range(8))) == 1


class TestExchange:
    def test_each_gets_the_name_of_the_other(self, place: Path) -> None:
        (place / "one").mkdir()
        (place / "one/f").write_text("x")
        (place / "sub").mkdir()
        (place / "sub/other").write_text("y")
        exchange(place / "one", place / "sub/other")
        assert (place / "one").read_text() == "y"
        assert (place / "sub/other/f").read_text() == "x"

    def test_both_must_exist(self, place: Path) -> None:
        (place / "one").mkdir()
        with pytest.raises(FileNotFoundError):
            exchange(place / "one", place / "other")
        assert (place / "one").is_dir()


@pytest.mark.parametrize("rename", [rename_new, exchange])
class TestWhereItCannotBeDone:
    def test_a_file_system_that_cannot_is_an_error_and_changes_nothing(self, place: Path, rename: object) -> None:
        # The kernel says the same of a directory and one in it as of a file system that cannot.
        (place / "a/b").mkdir(parents=True)
        with pytest.raises(OSError, match="the kernel or the file system cannot") as caught:
            rename_new(place / "a", place / "a/b/c") if rename is rename_new else exchange(place / "a", place / "a/b")
        assert caught.value.errno == errno.ENOTSUP
        assert (place / "a/b").is_dir()

    def test_a_system_without_the_call_is_an_error_and_changes_nothing(
        self, place: Path, rename: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(renaming, "_CALL", None)
        (place / "a").mkdir()
        with pytest.raises(OSError, match="the kernel or the file system cannot") as caught:
            rename_new(place / "a", place / "b") if rename is rename_new else exchange(place / "a", place / "b")
        assert caught.value.errno == errno.ENOTSUP
        assert os.listdir(place) == ["a"]
