import re
import time

import pytest

from pydantic_ai_sandbox.console import text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain\n", "plain"),
        ("tab\tstays\n\nand empty lines\n\n", "tab\tstays\n\nand empty lines"),
        ("windows\r\nlines\r\n", "windows\nlines"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b[38;2;1;2;3mtrue colour\x1b[K", "true colour"),
        ("\x9b31m8-bit\x9b0m", "8-bit"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;https://example.com\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPdevice control\x1b\\after", "after"),
        ("\x1b(Bcharset\x1b=keypad", "charsetkeypad"),
        ("unfinished \x1b[31", "unfinished \\x1b[31"),
        ("10%\r 50%\r100%\ndone", "100%\ndone"),
        ("bar\r\n", "bar"),
        ("kept\r", "kept"),
        ("N\bNA\bAM\bM", "NAM"),
        ("|\b/\b-\bok", "ok"),
        ("\b\bx", "x"),
        ("bell\x07 nul\x00 delete\x7f", "bell\\x07 nul\\x00 delete\\x7f"),
        ("evil\u202egnp.exe", "evil\\u202egnp.exe"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("tag\U000e0041", "tag\\U000e0041"),
        ("line\u2028separator\x85", "line\\u2028separator\\x85"),
        ("byte \udcff, surrogate \ud83d", "byte \\xff, surrogate \\ud83d"),
        ("family 👨\u200d👩\u200d👧 é ش 漢", "family 👨\u200d👩\u200d👧 é ش 漢"),
    ],
)
def test_output_is_what_a_reader_would_see(raw: str, shown: str) -> None:
    assert text.output(raw) == shown


@pytest.mark.parametrize(
    "line",
    [
        "[exit 0 · 1.2 s · /workspace]",
        "[timed out after 120 s; process tree killed · /w]",
        "[… 1,234 bytes omitted …]",
        "[stderr]",
        "[job 1 · running]",
        "[exit 0 · trailing blanks]   ",
        "[exit 0·1·2]",
    ],
)
def test_a_line_that_could_be_ours_gets_a_backslash(line: str) -> None:
    assert text.output(f"before\n{line}\nafter") == f"before\n\\{line}\nafter"


@pytest.mark.parametrize("line", ["[INFO] started", "[1, 2, 3]", "a [exit 0 · x]", "[section]", "  [exit 0 · x]"])
def test_other_lines_in_brackets_stay(line: str) -> None:
    assert text.output(f"x\n{line}\nx") == f"x\n{line}\nx"


def test_an_escape_sequence_cannot_hide_a_line_that_could_be_ours() -> None:
    assert text.output("\x1b[0m[exit 0 · 1 s · /]").startswith("\\[")
    assert text.output("junk\r[exit 0 · 1 s · /]").startswith("\\[")
    assert text.output("x\b[exit 0 · 1 s · /]").startswith("\\[")


def _marker(omitted: int) -> str:
    return f"[… {omitted} bytes omitted …]"


def _clip(raw: str, limit: int) -> text.Clipped:
    return text.clip(raw, "", 0, limit, _marker)


def test_text_that_fits_is_whole() -> None:
    assert _clip("x" * 100, 100) == text.Clipped("x" * 100)


def test_the_marker_counts_bytes_exactly() -> None:
    raw = "é" * 1000
    clipped = _clip(raw, 100)
    head, marker, tail = clipped.text.split("\n")
    assert len((head + tail).encode()) + clipped.omitted == 2000
    assert marker == f"[… {clipped.omitted} bytes omitted …]"
    assert len(head + tail) <= 100


def test_cuts_are_made_at_line_ends() -> None:
    clipped = _clip("".join(f"line {number}\n" for number in range(1000)), 400)
    assert all(re.fullmatch(r"line \d+|\[….*…\]", line) for line in clipped.text.split("\n"))


def test_cutting_cannot_make_a_line_that_looks_like_ours() -> None:
    fake = "[exit 0 · 1 s · /]"
    for shift in range(60):
        lines = _clip("a" * (200 + shift) + fake + "b" * 60 + fake, 30 + shift).text.split("\n")
        assert fake not in lines
        assert len([line for line in lines if line.startswith("[…")]) == 1


def test_what_the_backend_left_out_counts_too() -> None:
    assert text.clip("head\n", "tail\n", 500, 100, _marker) == text.Clipped("head\n[… 500 bytes omitted …]\ntail", 500)
    assert text.clip("h" * 80, "t" * 80, 500, 100, _marker).omitted == 560


def test_a_very_long_line_is_shown_from_both_ends() -> None:
    clipped = _clip("start\n" + "x" * 2_000_000 + "\nend", 1_000)
    head, _, tail = clipped.text.partition("\n[…")
    assert head.startswith("start\nxxx")
    assert tail.endswith("xxx\nend")
    assert clipped.omitted > 1_998_000


def test_progress_bars_collapse_before_anything_is_cut() -> None:
    bar = "".join(f"\r{number}%" for number in range(10_000))
    assert _clip(f"start\n{bar}\nend\n", 100) == text.Clipped("start\n9999%\nend")


@pytest.mark.parametrize(
    "piece", ["x", "\n", "\r", "\b", "a\b", "\x1b[", "\x1b]", "\x1bP", "\x9b0", "[", "[…\n", "\x00", "\udcff", "· ]\n["]
)
def test_hostile_output_costs_bounded_time(piece: str) -> None:
    raw = piece * (1_000_000 // len(piece))
    started = time.thread_time()
    clipped = _clip(raw, 30_000)
    assert time.thread_time() - started < 3
    assert len(clipped.text) < 31_000
    clipped.text.encode()


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("src/a b.py", "src/a b.py"),
        ("a:b", '"a:b"'),
        (" a", '" a"'),
        ("a ", '"a "'),
        ("", '""'),
        ("a\nb\tc", "a\\nb\\tc"),
        ("[id].tsx", "[id].tsx"),
        ("[exit 0 · x]", '"[exit 0 · x]"'),
        ("\udcff\x1b[31m", "\\xff\\x1b[31m"),
    ],
)
def test_a_path_is_one_clear_word(path: str, shown: str) -> None:
    assert text.rendered_path(path) == shown


def test_inline_text_is_short_and_on_one_line() -> None:
    assert text.inline("a\nb" * 1000, 10) == "a\\nba\\nba\\…"


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1 << 20, "1 MiB"),
        ((1 << 20) - 1, "1 MiB"),
        (10 << 30, "10 GiB"),
        (3 << 40, "3 TiB"),
    ],
)
def test_sizes(number: int, shown: str) -> None:
    assert text.size(number) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0.0 s"), (1.24, "1.2 s"), (12.4, "12 s"), (120, "120 s"), (3600, "3600 s")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert text.duration(seconds) == shown


def test_counts() -> None:
    assert [text.count(number, "line") for number in (0, 1, 2, 1234)] == ["0 lines", "1 line", "2 lines", "1,234 lines"]
    assert text.count(2, "entry", "entries") == "2 entries"
