"""Paths in a tenant's directory lead where the tenant's programs would get, and never out."""

from __future__ import annotations

import errno
import fcntl
import os
import posixpath
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydantic_ai_sandbox.trees import Tree, remove_tree
from tests.trees.making import ODD_NAMES, attempts, make_deep, make_odd, make_special, swapping


def content(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


@pytest.fixture
def root(place: Path) -> Path:
    root = place / "root"
    (root / "a/b").mkdir(parents=True)
    (root / "f").write_text("top")
    (root / "a/f").write_text("in a")
    (root / "a/b/f").write_text("in b")
    (place / "secret").mkdir()
    (place / "secret/f").write_text("SECRET")
    (place / "f").write_text("SECRET")
    return root


class TestOpenFile:
    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("f", "top"),
            ("./a//f", "in a"),
            ("/workspace/a/f", "in a"),
            ("a/b/../f", "in a"),
            ("../workspace/a/f", "in a"),
            ("/workspace/a/../../workspace/f", "top"),
            ("/../../workspace/f", "top"),
        ],
    )
    def test_a_path_is_relative_or_as_the_tenant_sees_it(self, root: Path, path: str, expected: str) -> None:
        with Tree(root) as tree:
            assert content(tree.open_file(path)).decode() == expected

    @pytest.mark.parametrize(
        "path", ["/etc/passwd", "../f", "../secret/f", "a/../../f", "/f", "/workspace2/f", "/", ".."]
    )
    def test_a_path_that_leads_out_is_refused(self, root: Path, path: str) -> None:
        with Tree(root) as tree:
            for call in (tree.open_file, tree.open_directory, tree.list, tree.write):
                with pytest.raises(PermissionError, match="leads out of the workspace") as caught:
                    call(path)
                assert caught.value.filename == path

    @pytest.mark.parametrize(
        ("target", "expected"),
        [("f", "in a"), ("../f", "top"), ("b/f", "in b"), ("/workspace/a/b/f", "in b"), ("../../workspace/f", "top")],
    )
    def test_links_are_followed_inside(self, root: Path, target: str, expected: str) -> None:
        (root / "a/link").symlink_to(target)
        (root / "to-a").symlink_to("/workspace/a")
        (root / "chain").symlink_to("to-a/link")
        with Tree(root) as tree:
            for path in ("a/link", "to-a/link", "chain"):
                assert content(tree.open_file(path)).decode() == expected

    @pytest.mark.parametrize(
        "target", ["/etc/passwd", "../f", "../secret/f", "/proc/self/root/etc/passwd", "a/../../f", "/"]
    )
    def test_links_that_lead_out_are_refused(self, root: Path, target: str) -> None:
        (root / "link").symlink_to(target)
        (root / "a/chain").symlink_to("../link")
        with Tree(root) as tree:
            for path in ("link", "a/chain", "link/f"):
                with pytest.raises(PermissionError, match="leads out of the workspace"):
                    tree.open_file(path)

    def test_the_root_may_be_seen_anywhere(self, root: Path) -> None:
        (root / "link").symlink_to("/srv/files/a/f")
        (root / "old").symlink_to("/workspace/f")
        with Tree(root, seen_as="/srv/files") as tree:
            assert content(tree.open_file("/srv/files/f")) == b"top"
            assert content(tree.open_file("../files/../../srv/./files/link")) == b"in a"
            with pytest.raises(PermissionError):
                tree.open_file("old")

    def test_what_is_no_regular_file_is_refused_at_once(self, root: Path) -> None:
        with Tree(root) as tree:
            for name in make_special(root):
                with pytest.raises(OSError, match="not a regular file"):
                    tree.open_file(name)
            for path in ("a", "", "a/b/.."):
                with pytest.raises(IsADirectoryError):
                    tree.open_file(path)

    def test_what_is_missing_is_told_apart(self, root: Path) -> None:
        (root / "dangling").symlink_to("nowhere")
        with Tree(root) as tree:
            for path in ("missing", "missing/f", "dangling"):
                with pytest.raises(FileNotFoundError):
                    tree.open_file(path)
            with pytest.raises(NotADirectoryError):
                tree.open_file("f/f")
            with pytest.raises(ValueError, match="NUL"):
                tree.open_file("f\0")

    def test_links_in_a_circle_and_too_many_components_are_refused(self, root: Path) -> None:
        (root / "one").symlink_to("other")
        (root / "other").symlink_to("one")
        (root / "growing").symlink_to("growing/growing")
        make_deep(root, 300)
        with Tree(root) as tree:
            for path, number in (("one", errno.ELOOP), ("growing", errno.ELOOP), ("deep/" * 299, errno.ENAMETOOLONG)):
                with pytest.raises(OSError) as caught:  # noqa: PT011
                    tree.open_file(path)
                assert caught.value.errno == number
            os.close(tree.open_directory("deep/" * 200))

    def test_odd_names_are_opened(self, root: Path) -> None:
        make_odd(root)
        with Tree(root) as tree:
            for name in ODD_NAMES:
                text = os.fsdecode(name)
                assert content(tree.open_file(f"{text}/{text}")) == name

    def test_a_file_that_a_process_holds_a_lease_on_does_not_keep_us_waiting(self, root: Path) -> None:
        held = os.open(root / "f", os.O_RDWR)
        fcntl.fcntl(held, fcntl.F_SETSIG, 23)  # SIGURG is ignored
        fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        with Tree(root) as tree, pytest.raises(BlockingIOError):
            tree.open_file("f")
        os.close(held)

    def test_a_root_that_is_a_link_is_not_opened(self, root: Path, place: Path) -> None:
        (place / "link").symlink_to(root)
        with pytest.raises(OSError, match=r"Not a directory|symbolic"), Tree(place / "link"):
            pass


NAMES = ["a", "b", "f", "l", "..", ".", "", "/workspace", "/"]
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=6).map(lambda names: "/".join(names).replace("//", "/"))
LINKS = PATHS.filter(bool)


def model(links: dict[str, str], directories: set[str], path: str) -> str | None:
    """Where a path leads by the kernel's rules, with the root at /workspace; None where it fails or is outside."""
    here = "/workspace"
    todo = path.split("/")[::-1]
    if path.startswith("/"):
        here = "/"
    for _ in range(400):
        if not todo:
            return here if here == "/workspace" or here.startswith("/workspace/") else None
        name = todo.pop()
        if name in ("", "."):
            continue
        if name == "..":
            here = posixpath.dirname(here)
            continue
        there = posixpath.join(here, name)
        if there in links:
            todo += links[there].split("/")[::-1]
            here = "/" if links[there].startswith("/") else here
        elif there in directories or (not [rest for rest in todo if rest not in ("", ".")] and there.endswith("/f")):
            here = there
        else:
            return None
    return None


class TestResolution:
    @settings(max_examples=400, deadline=None)
    @given(links=st.tuples(LINKS, LINKS, LINKS), path=PATHS)
    def test_a_path_leads_where_the_model_says_or_fails(
        self, tmp_path_factory: pytest.TempPathFactory, links: tuple[str, str, str], path: str
    ) -> None:
        place = tmp_path_factory.mktemp("model")
        try:
            root = place / "root"
            (root / "a/b").mkdir(parents=True)
            folders = {"/": None, "/workspace": "", "/workspace/a": "a", "/workspace/a/b": "a/b"}
            planted = {}
            for folder, target in zip(["", "a", "a/b"], links, strict=True):
                (root / folder / "f").write_text(folder)
                (root / folder / "l").symlink_to(target)
                planted[posixpath.join("/workspace", folder, "l")] = target
            (place / "f").write_text("SECRET")
            expected = model(planted, set(folders), path)
            with Tree(root) as tree:
                try:
                    found = os.readlink(f"/proc/self/fd/{(descriptor := tree.open_directory(path))}")
                    os.close(descriptor)
                except NotADirectoryError:
                    try:
                        found = os.readlink(f"/proc/self/fd/{(descriptor := tree.open_file(path))}")
                        os.close(descriptor)
                    except OSError:
                        found = None
                except OSError:
                    found = None
            if found is None:
                assert expected is None
            else:
                assert expected is not None
                assert found == os.path.normpath(f"{root}/{posixpath.relpath(expected, '/workspace')}")
        finally:
            remove_tree(place.parent, place.name)


class TestList:
    def test_entries_are_sorted_and_told_apart(self, root: Path) -> None:
        (root / "link").symlink_to("/etc/passwd")
        os.mkfifo(root / "fifo")
        os.utime(root / "f", (1, 1.5))
        with Tree(root) as tree:
            listing = tree.list()
            assert [(entry.name, entry.kind) for entry in listing.entries] == [
                ("a", "directory"), ("f", "file"), ("fifo", "other"), ("link", "link"),
            ]  # fmt: skip
            assert (listing.entries[1].size, listing.entries[1].mtime, listing.truncated) == (3, 1.5, False)
            assert [entry.name for entry in tree.list("/workspace/a").entries] == ["b", "f"]
            with pytest.raises(NotADirectoryError):
                tree.list("f")

    def test_only_the_first_are_listed(self, root: Path) -> None:
        for number in range(50):
            (root / "a" / f"{number:02}").touch()
        with Tree(root) as tree:
            listing = tree.list("a", limit=10)
            assert [entry.name for entry in listing.entries] == [f"{number:02}" for number in range(10)]
            assert listing.truncated
            assert not tree.list("a", limit=52).truncated

    def test_names_survive_whatever_is_in_them(self, root: Path) -> None:
        make_odd(root / "a/b")
        with Tree(root) as tree:
            names = {os.fsencode(entry.name) for entry in tree.list("a/b").entries}
        assert names == {*ODD_NAMES, b"f"}


def opened(tree: Tree, path: str) -> set[bytes]:
    return {content(tree.open_file(path))}


def listed(tree: Tree, path: str) -> set[bytes]:
    return {os.fsencode(entry.name) for entry in tree.list(posixpath.dirname(path)).entries}


def naively(root: Path, path: str) -> set[bytes]:
    with open(root / path, "rb") as file:
        return {file.read()}


def many_times(look: Callable[[], set[bytes]], wanted: set[bytes], *, count: int = 5_000) -> set[bytes]:
    """What `count` looks saw, and the names of their errors; more looks while that is not all that is wanted."""
    seen: set[bytes] = set()
    for _ in attempts(count, lambda: wanted <= seen):
        try:
            seen.update(look())
        except OSError as error:
            seen.add(errno.errorcode[error.errno or 0].encode())
    return seen


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("target", ["/etc", "../secret"])
def test_a_directory_that_is_swapped_with_a_link_is_never_left(root: Path, place: Path, target: str) -> None:
    (root / "a/passwd").write_text("in a")
    (place / "secret/passwd").write_text("SECRET")
    (root / "swapped").symlink_to(target)
    with swapping(root / "a", root / "swapped"), Tree(root) as tree:
        both = {b"in a", (root / target / "passwd").read_bytes()}
        assert both <= many_times(lambda: naively(root, "a/passwd"), both), "whoever follows links sees something else"
        files = many_times(lambda: opened(tree, "a/passwd"), {b"in a", b"EACCES"}, count=20_000)
        names = many_times(lambda: listed(tree, "a/passwd"), {b"passwd", b"EACCES"})
    assert {b"in a", b"EACCES"} <= files <= {b"in a", b"EACCES", b"ENOTDIR", b"ELOOP"}
    assert {b"passwd", b"EACCES"} <= names <= {b"b", b"f", b"passwd", b"EACCES", b"ENOTDIR", b"ELOOP"}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_file_that_is_swapped_with_a_link_or_a_pipe_is_never_taken_for_it(root: Path, place: Path) -> None:
    (root / "link").symlink_to("../secret/f")
    os.mkfifo(root / "pipe")
    with swapping(root / "f", root / "link"), swapping(root / "a/f", root / "pipe"), Tree(root) as tree:
        links = many_times(lambda: opened(tree, "f"), {b"top", b"EACCES"})
        pipes = many_times(lambda: opened(tree, "a/f"), {b"in a", b"EINVAL"})
    assert {b"top", b"EACCES"} <= links <= {b"top", b"EACCES", b"ELOOP"}
    assert pipes == {b"in a", b"EINVAL"}


def test_opening_does_not_block_where_a_naive_open_does(root: Path) -> None:
    os.mkfifo(root / "fifo")
    # The test proves something only if this hangs.
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", f"open({str(root / 'fifo')!r})"], timeout=2, check=False)
    with Tree(root) as tree, pytest.raises(OSError, match="not a regular file"):
        tree.open_file("fifo")
