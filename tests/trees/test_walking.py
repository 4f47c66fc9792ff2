"""A walk sees everything below a directory once, with few descriptors, and never leaves it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydantic_ai_sandbox.trees import remove_tree
from pydantic_ai_sandbox.trees.descriptors import READ_FOLDER, is_gone
from pydantic_ai_sandbox.trees.walking import Descent, walk
from tests.trees.making import make_deep


def seen(top: Path) -> list[str]:
    """The paths in the order of a walk, entering with `/`, leaving with `/..`."""
    root = os.open(top, READ_FOLDER)
    prefix, found = "", list[str]()
    for step in walk(root):
        if step.kind == "entry":
            found.append(prefix + step.name)
        elif step.kind == "enter":
            prefix += step.name + "/"
            found.append(prefix)
        else:
            found.append(prefix + "..")
            prefix = prefix[: -len(step.name) - 1]
    os.close(root)
    return found


TREES = st.recursive(
    st.none(), lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=4), max_leaves=20
)


def make(top: Path, tree: dict[str, object] | None) -> set[str]:
    """Directories for dictionaries, files for None; returns what a walk sees."""
    names: set[str] = set()
    for name, inner in (tree or {}).items():
        if inner is None:
            (top / name).touch()
            names.add(name)
        else:
            assert isinstance(inner, dict)
            (top / name).mkdir()
            names |= {f"{name}/", f"{name}/..", *(f"{name}/{below}" for below in make(top / name, inner))}
    return names


class TestWalk:
    @settings(max_examples=100, deadline=None)
    @given(tree=TREES)
    def test_everything_is_seen_once(
        self, tmp_path_factory: pytest.TempPathFactory, tree: dict[str, object] | None
    ) -> None:
        place = tmp_path_factory.mktemp("walk")
        expected = make(place, tree)
        found = seen(place)
        remove_tree(place.parent, place.name)
        assert sorted(found) == sorted(expected)
        for path in found:
            if path.endswith("/"):
                assert found.index(path) < found.index(path + "..")

    def test_links_are_seen_and_not_followed(self, place: Path) -> None:
        (place / "to-directory").symlink_to("/etc")
        (place / "d").mkdir()
        (place / "d/up").symlink_to("..")
        assert sorted(seen(place)) == ["d/", "d/..", "d/up", "to-directory"]

    @pytest.mark.parametrize("depth", [63, 64, 65, 200, 5000])
    def test_few_directories_are_open_however_deep_it_is(self, place: Path, depth: int) -> None:
        make_deep(place, depth, "d")
        before = len(os.listdir("/proc/self/fd"))
        root = os.open(place, READ_FOLDER)
        most = entered = left = 0
        for step in walk(root):
            entered += step.kind == "enter"
            left += step.kind == "leave"
            most = max(most, len(os.listdir("/proc/self/fd")) - before)
        os.close(root)
        assert entered == left == depth
        assert most < 70

    def test_what_is_beside_a_deep_directory_is_seen_after_it(self, place: Path) -> None:
        folder = place
        for _ in range(200):
            (folder / "a").mkdir()
            (folder / "b").mkdir()
            (folder / "b/f").touch()
            folder = folder / "a"
        found = seen(place)
        assert len([path for path in found if path.endswith("b/f")]) == 200
        assert len(found) == 200 * 5

    def test_opening_again_is_cheap_however_deep_it_is(self, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_deep(place, 5000, "d")
        opened = 0

        def counting(name: str, folder: int) -> int:
            nonlocal opened
            opened += 1
            return os.open(name, READ_FOLDER, dir_fd=folder)

        monkeypatch.setattr("pydantic_ai_sandbox.trees.walking.open_folder", counting)
        root = os.open(place, READ_FOLDER)
        with Descent(root) as descent:
            for _ in range(5000):
                descent.enter("d")
            for _ in range(5000):
                descent.folder()
                descent.leave()
        os.close(root)
        assert opened < 4 * 5000

    def test_more_directories_than_can_be_remembered_are_an_error(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pydantic_ai_sandbox.trees.walking._MOST_REMEMBERED", 10)
        for number in range(11):
            (place / str(number)).mkdir()
        root = os.open(place, READ_FOLDER)
        with pytest.raises(OSError, match="more than 10 directories"):
            list(walk(root))
        os.close(root)


class TestDescent:
    def test_a_directory_that_was_replaced_meanwhile_is_not_taken_for_the_one_left(self, place: Path) -> None:
        make_deep(place, 200, "d")
        root = os.open(place, READ_FOLDER)
        with Descent(root) as descent:
            for _ in range(200):
                descent.enter("d")
            # A level that is closed by now, and everything below it with it.
            (place / "d/d").rename(place / "moved")
            (place / "d").rename(place / "old")
            make_deep(place, 200, "d")
            lost = 0
            for _ in range(200):
                try:
                    descent.folder()
                except OSError as error:
                    assert is_gone(error)
                    lost += 1
                descent.leave()
            assert lost
            assert os.path.samestat(os.fstat(descent.folder()), os.fstat(root)), "the root is still there"
            descent.enter("d")
        os.close(root)

    def test_a_link_in_place_of_a_directory_left_is_not_followed(self, place: Path) -> None:
        make_deep(place, 200, "d")
        (place / "other").mkdir()
        make_deep(place / "other", 200, "d")
        root = os.open(place, READ_FOLDER)
        with Descent(root) as descent:
            for _ in range(200):
                descent.enter("d")
            (place / "d").rename(place / "old")
            (place / "d").symlink_to("other/d")
            errors = 0
            for _ in range(199):
                try:
                    folder = descent.folder()
                except OSError as error:
                    assert is_gone(error)
                    errors += 1
                else:
                    assert "/other" not in os.readlink(f"/proc/self/fd/{folder}")
                descent.leave()
            assert errors
        os.close(root)
