"""A file is uploaded completely or not at all, and lands inside."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from pydantic_ai_sandbox.trees import Tree
from tests.trees.making import attempts, described, swapping

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def root(place: Path) -> Path:
    (place / "root").mkdir()
    (place / "secret").mkdir()
    return place / "root"


def write(root: Path, path: str, data: bytes = b"new", *, limit: int | None = None) -> None:
    with Tree(root) as tree, tree.write(path, limit=limit) as upload:
        upload.write(data)
        upload.commit()


class TestUpload:
    def test_a_file_appears_when_it_is_committed(self, root: Path) -> None:
        with Tree(root) as tree, tree.write("f") as upload:
            upload.write(b"one ")
            upload.write(b"two")
            assert not (root / "f").exists()
            upload.commit()
            assert (root / "f").read_bytes() == b"one two"
        assert os.listdir(root) == ["f"]
        assert stat.S_IMODE((root / "f").stat().st_mode) == 0o644

    @pytest.mark.parametrize("how", ["abort", "leave", "error"])
    def test_a_file_that_is_not_committed_leaves_nothing(self, root: Path, how: str) -> None:
        (root / "f").write_text("old")
        try:
            with Tree(root) as tree, tree.write("f") as upload:
                upload.write(b"new")
                if how == "abort":
                    upload.abort()
                if how == "error":
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        assert described(root) == {"f": (stat.S_IFREG, 0o644, b"old")}

    def test_a_replaced_file_keeps_its_permissions_but_not_those_of_a_program_of_somebody_else(
        self, root: Path
    ) -> None:
        (root / "f").write_text("old")
        (root / "f").chmod(0o4750)
        write(root, "f")
        assert described(root) == {"f": (stat.S_IFREG, 0o750, b"new")}

    def test_missing_directories_are_made(self, root: Path) -> None:
        old = os.umask(0o077)
        try:
            write(root, "/workspace/a/b/f")
        finally:
            os.umask(old)
        assert described(root) == {
            "a": (stat.S_IFDIR, 0o755, None),
            "a/b": (stat.S_IFDIR, 0o755, None),
            "a/b/f": (stat.S_IFREG, 0o644, b"new"),
        }

    @as_root
    def test_everything_made_belongs_to_whom_the_root_belongs_to(self, root: Path) -> None:
        os.chown(root, 12345, 23456)
        write(root, "a/b/f")
        for path in ("a", "a/b", "a/b/f"):
            found = (root / path).stat()
            assert (found.st_uid, found.st_gid) == (12345, 23456)

    def test_a_link_is_replaced_and_not_followed(self, root: Path, place: Path) -> None:
        (place / "secret/f").write_text("kept")
        (root / "inside").write_text("kept")
        (root / "out").symlink_to(place / "secret/f")
        (root / "in").symlink_to("inside")
        for path in ("out", "in"):
            write(root, path)
            assert not (root / path).is_symlink()
        assert (place / "secret/f").read_text() == (root / "inside").read_text() == "kept"

    def test_a_hard_link_is_replaced_and_its_other_name_kept(self, root: Path, place: Path) -> None:
        (place / "secret/f").write_text("kept")
        os.link(place / "secret/f", root / "f")
        write(root, "f")
        assert (place / "secret/f").read_text() == "kept"

    def test_a_pipe_is_replaced_without_waiting_for_it(self, root: Path) -> None:
        os.mkfifo(root / "f")
        write(root, "f")
        assert (root / "f").read_bytes() == b"new"

    def test_directories_on_the_way_may_be_links_inside(self, root: Path) -> None:
        (root / "real").mkdir()
        (root / "link").symlink_to("/workspace/real")
        write(root, "link/new/f")
        assert (root / "real/new/f").read_bytes() == b"new"

    def test_directories_on_the_way_are_no_links_out(self, root: Path, place: Path) -> None:
        (root / "link").symlink_to("../secret")
        with pytest.raises(PermissionError, match="leads out"):
            write(root, "link/f")
        assert os.listdir(place / "secret") == []

    @pytest.mark.parametrize("path", ["a", "", ".", "/workspace", "a/.."])
    def test_a_directory_is_not_replaced(self, root: Path, path: str) -> None:
        (root / "a").mkdir()
        with pytest.raises(IsADirectoryError):
            write(root, path)
        assert described(root) == {"a": (stat.S_IFDIR, 0o755, None)}

    def test_a_directory_that_comes_meanwhile_is_not_replaced(self, root: Path) -> None:
        with Tree(root) as tree, tree.write("f") as upload:
            (root / "f").mkdir()
            with pytest.raises(IsADirectoryError):
                upload.commit()
        assert described(root) == {"f": (stat.S_IFDIR, 0o755, None)}

    def test_a_file_in_place_of_a_directory_is_an_error(self, root: Path) -> None:
        (root / "f").write_text("kept")
        with pytest.raises(NotADirectoryError):
            write(root, "f/g")
        assert (root / "f").read_text() == "kept"

    def test_what_is_larger_than_its_limit_is_refused(self, root: Path) -> None:
        write(root, "fits", b"x" * 10, limit=10)
        with pytest.raises(OSError, match="more than 10 bytes") as caught:
            write(root, "f", b"x" * 11, limit=10)
        assert caught.value.errno == errno.EDQUOT
        with pytest.raises(OSError, match="more than 0 bytes"):
            write(root, "f", b"x", limit=0)
        assert os.listdir(root) == ["fits"]

    @pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="files without a name are Linux's")
    def test_nothing_is_there_to_be_left_before_it_is_whole(self, root: Path) -> None:
        with Tree(root) as tree, tree.write("f") as upload:
            upload.write(b"x" * 1000)
            assert os.listdir(root) == []
            upload.commit()
            assert os.listdir(root) == ["f"]

    def test_hostile_code_may_take_the_draft_away(self, root: Path) -> None:
        with Tree(root) as tree, tree.write("f", limit=10) as upload:
            (draft,) = os.listdir(root)
            assert draft.startswith(".upload-")
            (root / draft).unlink()
            (root / draft).mkdir()
            upload.abort()
        with Tree(root) as tree, tree.write("g", limit=10) as upload:
            next(path for path in root.iterdir() if path.is_file()).unlink()
            with pytest.raises(FileNotFoundError):
                upload.commit()

    def test_odd_names_are_written(self, root: Path) -> None:
        write(root, os.fsdecode(b"\xff\n/\x1b"))
        assert os.listdir(os.fsencode(root)) == [b"\xff\n"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_directory_that_is_swapped_with_a_link_out_gets_nothing_out(root: Path, place: Path) -> None:
    (root / "a").mkdir()
    (root / "swapped").symlink_to("../secret")
    outcomes: set[str] = set()
    with swapping(root / "a", root / "swapped"):
        for number in attempts(500, lambda: "written" in outcomes and len(outcomes) > 1):
            try:
                write(root, f"a/new{number}/f")
                outcomes.add("written")
            except OSError as error:
                outcomes.add(errno.errorcode[error.errno or 0])
    assert os.listdir(place / "secret") == []
    assert "written" in outcomes
    assert len(outcomes) > 1
