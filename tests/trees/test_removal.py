"""Deleting a tenant's tree never follows a link and is not stopped by how the tree is made."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic_ai_sandbox.trees import remove_tree


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("kept")
    tree = tmp_path / "root" / "user"
    (tree / "sub").mkdir(parents=True)
    (tree / "to-directory").symlink_to(outside)
    (tree / "sub" / "to-file").symlink_to(outside / "precious")
    (tree / "sub" / "up").symlink_to("../../..")
    os.mkfifo(tree / "fifo")
    os.link(outside / "precious", tree / "hard")
    remove_tree(tmp_path / "root", "user")
    assert list((tmp_path / "root").iterdir()) == []
    assert (outside / "precious").read_text() == "kept"


def test_a_link_in_place_of_the_tree_is_only_unlinked(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "f").write_text("kept")
    (tmp_path / "user").symlink_to(tmp_path / "real")
    remove_tree(tmp_path, "user")
    assert (tmp_path / "real" / "f").read_text() == "kept"
    assert not (tmp_path / "user").is_symlink()


def test_a_tree_deeper_than_any_path_or_stack_is_removed(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(5000):
        os.mkdir("deep", dir_fd=folder)
        child = os.open("deep", os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
        os.close(folder)
        folder = child
    os.close(folder)
    remove_tree(tmp_path, "deep")
    assert list(tmp_path.iterdir()) == []


def test_a_wide_tree_with_odd_names_and_closed_directories_is_removed(tmp_path: Path) -> None:
    tree = os.fsencode(tmp_path / "user")
    os.mkdir(tree)
    for number in range(2000):
        Path(os.fsdecode(tree), f"f{number}").touch()
    for name in (b"new\nline", b"\xff\xfe", b"-rf", b" "):
        os.mkdir(os.path.join(tree, name))
        Path(os.fsdecode(os.path.join(tree, name, b"x"))).touch()
        os.chmod(os.path.join(tree, name), 0)
    remove_tree(tmp_path, "user")
    assert list(tmp_path.iterdir()) == []
