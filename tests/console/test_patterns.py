import json
import time
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from pydantic_ai_sandbox.console.patterns import Glob, Ignore, split_root

VECTORS = Path(__file__).parents[2] / "runtimes" / "runner" / "internal" / "pattern" / "testdata"


def vectors(name: str) -> list[Any]:
    """What the runner's own matcher is tested with: both must agree."""
    return json.loads((VECTORS / name).read_text())


def ignores(rules: list[str], path: str, *, is_dir: bool) -> bool:
    """Whether `path` or a directory above it is ignored, which decides about it too."""
    ignore = Ignore(rules)
    *above, own = accumulate(path.split("/"), "{}/{}".format)
    return any(ignore.decides(directory, is_dir=True) for directory in above) or bool(
        ignore.decides(own, is_dir=is_dir)
    )


@pytest.mark.parametrize("vector", vectors("globs.json"), ids=str)
def test_globs_mean_what_they_mean_to_the_runner(vector: dict[str, Any]) -> None:
    assert Glob(vector["pattern"]).matches(vector["path"]) is vector["match"]


@pytest.mark.parametrize("vector", vectors("gitignore.json"), ids=str)
def test_ignore_rules_mean_what_they_mean_to_the_runner(vector: dict[str, Any]) -> None:
    assert ignores(vector["rules"], vector["path"], is_dir=vector["is_dir"]) is vector["ignored"]


@pytest.mark.parametrize(
    ("pattern", "matching", "others"),
    [
        ("*.py", ["a.py", "x/y.py", ".py"], ["a.pyc", "x.py/y"]),
        ("*.{js,ts}", ["a.js", "x/b.ts"], ["a.jsx", "a.{js,ts}"]),
        ("src/*.py", ["src/a.py"], ["src/x/a.py", "a.py", "y/src/a.py"]),
        ("src/**/*.py", ["src/a.py", "src/x/y/a.py"], ["a.py", "srcs/a.py"]),
        ("src/**", ["src/a", "src/x/a"], ["a", "srcs/a"]),
        ("**/x", ["x", "a/x", "a/b/x"], ["xx", "x/a"]),
        ("a/**/b/**/c", ["a/b/c", "a/1/2/b/3/c"], ["a/c", "a/b"]),
        ("[a-c]?", ["a1", "x/c9"], ["d1", "a"]),
        ("[!a-c]*", ["d", "dd"], ["a", "abc"]),
        ("[^a]", ["b"], ["a"]),
        ("[]]", ["]"], ["["]),
        ("[a-]", ["-", "a"], ["b"]),
        ("\\*", ["*"], ["a"]),
        ("[\\]a]", ["]", "a"], ["\\"]),
        ("{a,b{c,d}}.x", ["a.x", "bc.x", "bd.x"], ["b.x", "ac.x"]),
        ("{src,test/unit}/*.py", ["src/a.py", "test/unit/a.py"], ["test/a.py"]),
        ("./src/*.py", ["src/a.py"], ["x/src/a.py"]),
        ("/*.py", ["a.py"], ["x/a.py"]),
        ("a b*", ["a b", "x/a bc"], ["ab"]),
        ("é?", ["éa"], ["e"]),
    ],
)
def test_globs(pattern: str, matching: list[str], others: list[str]) -> None:
    glob = Glob(pattern)
    assert [path for path in matching if not glob.matches(path)] == []
    assert [path for path in others if glob.matches(path)] == []


@pytest.mark.parametrize("pattern", ["", "a" * 1_001, "{a," * 60 + "}" * 60])
def test_hopeless_globs_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Glob(pattern)


@pytest.mark.parametrize(
    "pattern", ["[a", "{a,b", "a\\", "{a,{b,c}", "[[:alpha:", "[[:odd:]]", "[", "{", "}", "\\", "]"]
)
def test_odd_globs_do_no_harm(pattern: str) -> None:
    assert Glob(pattern).matches("other") is False


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("*a" * 60 + "b", "a" * 250),
        ("**/" * 60 + "b", "a/" * 200 + "a"),
        ("**/*a*a*a*a*b/" * 10 + "c", ("a" * 60 + "/") * 60 + "a"),
        ("{a,b}" * 150 + "c", "ab" * 100),
        ("{a*,*a}" * 100 + "c", "a" * 250),
    ],
)
def test_no_pattern_takes_long(pattern: str, path: str) -> None:
    started = time.thread_time()
    assert not Glob(pattern).matches(path)
    assert time.thread_time() - started < 1


@pytest.mark.parametrize(
    ("pattern", "root", "rest"),
    [
        ("/a/b/*.py", "/a/b", "/*.py"),
        ("/*.py", "/", "/*.py"),
        ("/a/**/b", "/a", "/**/b"),
        ("/a/b", "/a", "/b"),
        ("/a/{b,c}/d", "/a", "/{b,c}/d"),
    ],
)
def test_absolute_patterns_are_split(pattern: str, root: str, rest: str) -> None:
    assert split_root(pattern) == (root, rest)


RULES = ["*.log", "!keep.log", "/build", "doc/*.txt", "node_modules/", "a/**", "**/z", "x\\ ", "# no", "\\#d", "\\!e"]


@pytest.mark.parametrize(
    ("path", "is_dir", "ignored"),
    [
        ("a.log", False, True),
        ("x/a.log", False, True),
        ("x/keep.log", False, False),
        ("build", True, True),
        ("x/build", False, False),
        ("doc/a.txt", False, True),
        ("doc/x/a.txt", False, False),
        ("node_modules", False, False),
        ("y/node_modules", True, True),
        ("node_modules/keep.log", False, True),
        ("a", True, False),
        ("a/b", False, True),
        ("q/z", False, True),
        ("x ", False, True),
        ("#d", False, True),
        ("!e", False, True),
        ("# no", False, False),
    ],
)
def test_ignore_rules(path: str, is_dir: bool, ignored: bool) -> None:
    assert ignores(RULES, path, is_dir=is_dir) is ignored


@pytest.mark.parametrize("line", ["[", "\\", "!", "/", "//", "!/", "***", "a[b", " ", "\r"])
def test_odd_ignore_lines_do_no_harm(line: str) -> None:
    assert Ignore([line]).decides("other", is_dir=False) in {True, False, None}
