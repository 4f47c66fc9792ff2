import time

import pytest

from pydantic_ai_sandbox.editing import changed_since_read, detect_encoding, replace_text
from pydantic_ai_sandbox.errors import EditError


@pytest.mark.parametrize(
    ("content", "old", "new", "expected", "lines"),
    [
        (b"a\nb\nc\n", "b", "x", b"a\nx\nc\n", [2]),
        (b"a\nb\nc", "c", "", b"a\nb\n", [3]),
        (b"a\nb\nc\n", "a\nb\n", "", b"c\n", [1]),
        ("é\n".encode(), "é", "ü→", "ü→\n".encode(), [1]),
        (b"a\r\nb\r\n", "a\r\nb", "x", b"x\r\n", [1]),
        (b"a\r\nb\nc\r\nd\r\n", "b\nc", "x\ny", b"a\r\nx\ny\r\nd\r\n", [2]),
        (b"a\r\nb\nc\n", "b\nc", "x\ny", b"a\r\nx\ny\n", [2]),
        (b"a\nb\r\nc\n", "a", "x\ny", b"x\ny\nb\r\nc\n", [1]),
        (b"caf\xc3\xa9 caf\xe9 x\n", "caf\xe9 x", "th\xe9", b"caf\xc3\xa9 th\xe9\n", [1]),
        (b"caf\xc3\xa9 \xff\n", "café", "thé", b"th\xc3\xa9 \xff\n", [1]),
        (b"\x00\x01needle\xff\x00", "needle", "x", b"\x00\x01x\xff\x00", [1]),
        (b"\xff\xfe\x00\x00" + "ab".encode("utf-32-le"), "b", "c", b"\xff\xfe\x00\x00" + "ac".encode("utf-32-le"), [1]),
        (b"\xff\xfe" + b"\x00\xd8" + "x".encode("utf-16-le"), "x", "y", b"\xff\xfe\x00\xd8" + b"y\x00", [1]),
    ],
)
def test_only_the_text_changes(content: bytes, old: str, new: str, expected: bytes, lines: list[int]) -> None:
    made = replace_text(content, old, new)
    assert made.content == expected
    assert list(made.lines) == lines


def test_every_byte_outside_survives() -> None:
    junk = bytes(range(256)) * 3
    for mark in (b"", b"\xef\xbb\xbf"):
        made = replace_text(mark + junk + b"needle" + junk, "needle", "thread")
        assert made.content == mark + junk + b"thread" + junk


def test_replace_all_numbers_lines_of_the_new_content() -> None:
    made = replace_text(b"a\nb\na\na\n", "a", "x\ny", replace_all=True)
    assert made.content == b"x\ny\nb\nx\ny\nx\ny\n"
    assert list(made.lines) == [1, 4, 6]


@pytest.mark.parametrize(
    ("content", "old", "new", "message"),
    [
        (b"abc", "", "x", "old_string is empty; give the exact text to replace"),
        (b"abc", "a", "a", "old_string and new_string are the same; nothing to change"),
        (b"abc", "a", "\ud800", "new_string contains a lone surrogate, which no file can hold"),
        (b"", "a", "b", "found 0: the file is empty"),
        (
            b"a b a",
            "a",
            "x",
            "found 2, at lines 1, 1; old_string must be unique: add more of the lines around it, or set replace_all",
        ),
        (
            b"aaa",
            "aa",
            "x",
            "found 2, at lines 1, 1; old_string must be unique: add more of the lines around it, or set replace_all",
        ),
        (
            b"x\nfoo(bar, baz)\ny\n",
            "foo(bar, qux)",
            "x",
            "found 0 occurrences of old_string; nearest line 2:\n2\tfoo(bar, baz)",
        ),
        (
            b"\tif x:\n\t\treturn y\n",
            "if x:\n    return y",
            "x",
            "found 0 occurrences of old_string; nearest lines 1-2 (only whitespace differs):\n1\t\tif x:\n2\t\t\treturn y",
        ),
        (
            b"qwerty\n",
            "zzz",
            "x",
            "found 0 occurrences of old_string, and no similar lines; read the file to see what is there",
        ),
        (
            b"caf\xe9",
            "caf\xe9",
            "\u2192",
            "the file is encoded in windows-1252, which has no '→'; use other characters in new_string",
        ),
    ],
)
def test_a_refusal_says_why_and_where(content: bytes, old: str, new: str, message: str) -> None:
    with pytest.raises(EditError) as refused:
        replace_text(content, old, new)
    assert str(refused.value) == message


def test_many_places_are_named_up_to_a_bound() -> None:
    with pytest.raises(EditError, match=r"^found 1000, at lines 1, 2, .*, 20, …; "):
        replace_text(b"x\n" * 1000, "x", "y")


def test_nearest_lines_only_help_and_never_match() -> None:
    with pytest.raises(EditError):
        replace_text(b"return  x\n", "return x", "return y")


@pytest.mark.parametrize(
    ("content", "old"),
    [
        (b"x" * 20_000_000, "y" * 10_000),
        (b"ab" * 5_000_000, "ab" * 10_000 + "c"),
        (b"a\n" * 5_000_000, "b\n" * 5_000),
        (b"word other\n" * 500_000, "word another " * 1_000),
        (b"\n" * 1_000_000, "\n" * 100 + "x"),
    ],
)
def test_a_refusal_costs_bounded_time(content: bytes, old: str) -> None:
    started = time.thread_time()
    with pytest.raises(EditError) as refused:
        replace_text(content, old, "new")
    assert time.thread_time() - started < 3
    assert len(str(refused.value)) < 3_000


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"abc", "utf-8"),
        (b"\xef\xbb\xbfabc", "utf-8"),
        (b"\xff\xfea\x00", "utf-16-le"),
        (b"\xfe\xff\x00a", "utf-16-be"),
        (b"\xff\xfea", "windows-1252"),
        (b"\x81\x8d", "windows-1252"),
    ],
)
def test_encodings_are_detected_and_lose_nothing(content: bytes, name: str) -> None:
    encoding = detect_encoding(content)
    assert encoding.name == name
    assert encoding.encode(encoding.decode(content)) == content


def test_a_changed_file_is_named() -> None:
    assert str(changed_since_read("/a")).startswith("/a changed since you last read it; read it again")
