"""Every format a tool answers in, from what a workspace may say."""

from dataclasses import replace

import pytest
from pydantic_ai.workspaces import FileEntry

from pydantic_ai_sandbox.console import findings, pages, reports
from pydantic_ai_sandbox.protocols import (
    BoundedText,
    CauseOfDeath,
    Execution,
    GlobMatch,
    GlobResult,
    GrepLine,
    GrepResult,
    JobInfo,
    JobOutput,
    TextRange,
)


def ended(
    stdout: str = "",
    stderr: str = "",
    cause: CauseOfDeath = "exit",
    exit_code: int = 0,
    duration: float = 1.23,
    signal: str | None = None,
    limit: str | None = None,
    spilled_to: str | None = None,
) -> Execution:
    return Execution(
        exit_code=exit_code,
        cause=cause,
        stdout=BoundedText(head=stdout),
        stderr=BoundedText(head=stderr),
        duration=duration,
        cwd="/workspace",
        signal=signal,
        limit=limit,
        spilled_to=spilled_to,
    )


@pytest.mark.parametrize(
    ("execution", "expected"),
    [
        (ended("hi\n"), "hi\n[exit 0 · 1.2 s · /workspace]"),
        (ended(), "(no output)\n[exit 0 · 1.2 s · /workspace]"),
        (ended("\n\n"), "(no output)\n[exit 0 · 1.2 s · /workspace]"),
        (ended("a", "b", exit_code=2), "a\n[stderr]\nb\n[exit 2 · 1.2 s · /workspace]"),
        (ended("", "b"), "b\n[exit 0 · 1.2 s · /workspace]"),
        (
            ended("a", cause="timeout", exit_code=137, duration=120.31),
            "a\n[timed out after 120 s; process tree killed · /workspace]",
        ),
        (
            ended(cause="signal", exit_code=139, signal="SIGSEGV"),
            "(no output)\n[killed by SIGSEGV, exit 139 · 1.2 s · /workspace]",
        ),
        (
            ended("a", cause="out_of_memory", exit_code=137, limit="1 GiB of memory"),
            "a\n[killed: out of memory: 1 GiB of memory, exit 137 · 1.2 s · /workspace]",
        ),
        (
            ended("a", cause="too_many_processes", exit_code=1, limit="256 processes"),
            "a\n[exit 1, too many processes: 256 processes · 1.2 s · /workspace]",
        ),
        (
            ended("a", cause="output_limit", exit_code=137, limit="16 MiB"),
            "a\n[stopped at the output limit: 16 MiB; process tree killed · 1.2 s · /workspace]",
        ),
        (
            ended(cause="disk_quota", exit_code=143, limit="2 GiB"),
            "(no output)\n[stopped: the workspace is over its quota: 2 GiB; delete files to go on · 1.2 s · /workspace]",
        ),
        (ended("a", cause="cancelled", exit_code=143), "a\n[cancelled; process tree killed · 1.2 s · /workspace]"),
        (
            ended("a", spilled_to="/tmp/x.log"),
            "a\n[… output saved to /tmp/x.log …]\n[exit 0 · 1.2 s · /workspace]",
        ),
    ],
)
def test_how_a_command_ended(execution: Execution, expected: str) -> None:
    report = reports.command(execution, limit=30_000)
    assert report.text == expected
    assert not report.clipped


def test_what_a_sandbox_did_not_keep_is_marked() -> None:
    execution = replace(
        ended(spilled_to="/tmp/x.log"), stdout=BoundedText(head="first\n", tail="last\n", omitted=1_234_567)
    )
    report = reports.command(execution, limit=30_000)
    assert report.text.split("\n")[:3] == [
        "first",
        "[… 1,234,567 bytes omitted; output saved to /tmp/x.log …]",
        "last",
    ]
    assert report.clipped


@pytest.mark.parametrize("limit", [2_000, 30_000])
@pytest.mark.parametrize("shape", ["x", "x\n", "\n", "é", "\x00", "[stderr]\n", "\x1b[0m"])
def test_a_report_is_never_longer_than_its_limit(limit: int, shape: str) -> None:
    long = shape * 100_000
    execution = replace(ended(long, long, spilled_to="/tmp/" + "d" * 200), cwd="/" + "w" * 3_000)
    assert len(reports.command(execution, limit=limit, notes=["timeout lowered"]).text) <= limit


def test_notes_stand_before_the_directory() -> None:
    assert reports.command(ended("a"), limit=9_999, notes=["note"]).text == "a\n[exit 0 · 1.2 s · note · /workspace]"


JOB = JobInfo(id="j1", command="x", running=True, started=0.0, duration=12.3, output=10)
ENDED = replace(JOB, running=False, exit_code=0, cause="exit")


@pytest.mark.parametrize(
    ("read", "expected", "cursor"),
    [
        (
            JobOutput(data=b"0123456789", cursor=10, skipped=0, job=JOB),
            "0123456789\n[job j1 · running for 12 s · cursor=10]",
            10,
        ),
        (
            JobOutput(data=b"", cursor=10, skipped=0, job=JOB),
            "(no new output)\n[job j1 · running for 12 s · cursor=10]",
            10,
        ),
        (
            JobOutput(data=b"6789", cursor=10, skipped=6, job=ENDED),
            "[… 6 bytes are no longer kept …]\n6789\n[job j1 · exit 0 after 12 s · cursor=10]",
            10,
        ),
        (
            JobOutput(data=b"0123", cursor=4, skipped=0, job=ENDED),
            "0123\n[job j1 · exit 0 after 12 s · cursor=4 · 6 more bytes]",
            4,
        ),
        (
            JobOutput(data=b"caf\xc3", cursor=4, skipped=0, job=replace(JOB, output=4)),
            "caf\n[job j1 · running for 12 s · cursor=3 · 1 more bytes]",
            3,
        ),
        (
            JobOutput(data=b"caf\xc3", cursor=10, skipped=0, job=ENDED),
            "caf\ufffd\n[job j1 · exit 0 after 12 s · cursor=10]",
            10,
        ),
        (
            JobOutput(data=b"red\x1b[3", cursor=6, skipped=0, job=replace(JOB, output=6)),
            "red\n[job j1 · running for 12 s · cursor=3 · 3 more bytes]",
            3,
        ),
    ],
)
def test_what_a_job_printed(read: JobOutput, expected: str, cursor: int) -> None:
    assert reports.job_printed(read, limit=30_000) == (expected, cursor)


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (replace(ENDED, exit_code=3), "[job j1 · exit 3 after 12 s · 10 bytes printed]"),
        (replace(ENDED, cause="cancelled"), "[job j1 · stopped after 12 s · 10 bytes printed]"),
        (
            replace(ENDED, cause="signal", signal="SIGKILL"),
            "[job j1 · killed by SIGKILL after 12 s · 10 bytes printed]",
        ),
        (
            replace(ENDED, cause="disk_quota", exit_code=143),
            "[job j1 · stopped over the workspace's quota after 12 s · 10 bytes printed]",
        ),
        (replace(ENDED, cause="out_of_memory"), "[job j1 · killed: out of memory after 12 s · 10 bytes printed]"),
    ],
)
def test_how_a_job_ended(job: JobInfo, expected: str) -> None:
    assert reports.job_stopped(job) == expected


def test_a_started_job_names_only_tools_that_are_offered() -> None:
    assert reports.job_started("j1", "sleep 5", tools=frozenset({"job_stop"})) == (
        "Started in the background: sleep 5\n[job j1 · running · use job_stop to stop it]"
    )
    assert reports.job_started("j1", "sleep\n5", tools=frozenset()) == (
        "Started in the background: sleep\\n5\n[job j1 · running]"
    )


def test_input_for_a_job() -> None:
    assert reports.job_fed("j1", 5, closed=True) == "[job j1 · 5 bytes written · standard input closed]"
    assert reports.job_deaf(ENDED) == "Nothing written: the job has ended\n[job j1 · exit 0 after 12 s]"
    assert (
        reports.job_deaf(JOB) == "Nothing written: the job has closed its standard input\n[job j1 · running for 12 s]"
    )


def test_known_jobs_are_named() -> None:
    assert reports.jobs_known([]) == "there are no jobs"
    assert reports.jobs_known([JOB]) == "jobs: j1 (running for 12 s: x)"
    assert reports.jobs_known([JOB] * 25).endswith("; … 5 more")


def text_range(content: bytes, **changes: object) -> TextRange:
    lines = content.split(b"\n")
    newline = not lines[-1]
    found = TextRange(
        lines=lines[:-1] if newline else lines,
        first=1,
        total=len(lines) - newline,
        size=len(content),
        version="v",
        newline=newline,
    )
    return replace(found, **changes)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (text_range(b"a\nb\n"), "1\ta\n2\tb\n[lines 1-2 of 2; end of file]"),
        (text_range(b"a"), "1\ta\n[lines 1-1 of 1; end of file; no line feed at the end]"),
        (text_range(b"a\nb\n", total=9), "1\ta\n2\tb\n[lines 1-2 of 9; continue with offset=3]"),
        (text_range(b"a\r\nb\r\n"), "1\ta\n2\tb\n[lines 1-2 of 2; end of file; CRLF line endings]"),
        (
            text_range(b"a\r\nb"),
            "1\ta\n2\tb\n[lines 1-2 of 2; end of file; no line feed at the end; CRLF line endings]",
        ),
        (text_range(b"a\r\nb\n"), "1\ta\n2\tb\n[lines 1-2 of 2; end of file; mixed line endings, some CRLF]"),
        (text_range(b"\xef\xbb\xbfa\n"), "1\ta\n[lines 1-1 of 1; end of file; starts with a byte order mark]"),
        (text_range(b"caf\xe9\n"), "1\tcafé\n[lines 1-1 of 1; end of file]"),
        (
            text_range(b"ab\xc3\n", cut={1: 5000}),
            "1\tab… [cut: the line has 5,000 bytes]\n[lines 1-1 of 1; end of file]",
        ),
        (
            text_range(b"[lines 1-9 of 9]\n\x00\n"),
            "1\t[lines 1-9 of 9]\n2\t\\x00\n[lines 1-2 of 2; end of file; control characters shown as \\xNN or \\uNNNN]",
        ),
    ],
)
def test_a_page_of_a_file(found: TextRange, expected: str) -> None:
    assert pages.page(found, offset=1, limit=30_000) == expected


def test_a_page_is_never_longer_than_its_limit_and_shows_at_least_one_line() -> None:
    for content in (b"x" * 5_000 + b"\n" + b"y\n" * 5_000, b"\x00" * 5_000 + b"\n", b"\n" * 5_000):
        page = pages.page(text_range(content), offset=1, limit=2_000)
        assert len(page) <= 2_000
        assert page.startswith("1\t")


def test_kinds_of_binary_files() -> None:
    assert pages.binary("/f", b"%PDF-1.7\n", 9).endswith("[PDF document, not shown as text · 9 B · /f]")
    assert pages.binary("/f", b"\x00\x01", 2) == (
        "00000000  00 01                                            ..\n[binary file, not shown as text · 2 B · /f]"
    )


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (b"\x89PNG\r\n\x1a\n....", "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVE", None),
        (b"", None),
    ],
)
def test_images_are_known_by_their_first_bytes(head: bytes, media_type: str | None) -> None:
    assert pages.image_type(head) == media_type


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "Wrote 0 lines (0 bytes) to /a (created)"),
        (b"x", "Wrote 1 line (1 byte) to /a (created)"),
        (b"x\n", "Wrote 1 line (2 bytes) to /a (created)"),
        (b"x\ny", "Wrote 2 lines (3 bytes) to /a (created)"),
    ],
)
def test_what_was_written(content: bytes, expected: str) -> None:
    assert pages.wrote("/a", content, created=True) == expected


def test_an_edit_shows_its_first_places_and_names_the_others() -> None:
    content = b"".join(b"%d\n" % number for number in range(1, 301))
    answer = pages.edited("/a", content, list(range(10, 300, 10)), "x", limit=30_000)
    lines = answer.split("\n")
    assert lines[0].startswith("Edited /a: 29 replacements at lines 10, 20, 30")
    assert lines[0].endswith("200 and 9 more")
    assert [lines[1], lines[8], lines[9], lines[-1]] == ["7\t7", "…", "17\t17", "33\t33"]


def test_an_edits_answer_is_bounded() -> None:
    content = b"x" * 100_000 + b"\n" + b"y\n" * 100
    assert len(pages.edited("/a", content, [1], "x\n" * 5_000, limit=2_000)) <= 2_000


def test_a_listing() -> None:
    entries = [
        FileEntry(name="b", path="/d/b", is_dir=False, size=None),
        FileEntry(name="a\nb", path="/d/a\nb", is_dir=True, size=None),
        FileEntry(name="c", path="/d/c", is_dir=False, size=2048),
    ]
    assert findings.listing(entries, "/d", limit=9_999) == "a\\nb/\nb\nc  2 KiB\n[3 entries · /d]"
    assert findings.listing([], "/d", limit=9_999) == "[empty directory · /d]"


def test_found_paths_are_relative_to_the_working_directory_when_below_it() -> None:
    assert findings.relative("/workspace/a", "/workspace") == "a"
    assert findings.relative("/workspace2/a", "/workspace") == "/workspace2/a"
    assert findings.relative("/workspace", "/workspace") == "/workspace"
    assert findings.relative("/a", "/") == "a"


def match(path: str) -> GlobMatch:
    return GlobMatch(path=path, is_dir=False, size=1, modified=0.0)


def test_glob_answers() -> None:
    found = GlobResult(matches=[match("/w/b"), match("/other/a")], total=5, timed_out=True)
    assert findings.glob_matches(found, "/w", "/w", order="newest first", limit=9_999) == (
        "b\n/other/a\n[5 files matched, first 2 shown; use a narrower pattern or path · newest first · "
        "search stopped at its time limit, results incomplete · /w]"
    )


def test_grep_answers() -> None:
    lines = [
        GrepLine(path="/w/a", number=1, text="x", is_match=False, length=1),
        GrepLine(path="/w/a", number=2, text="hit\r", length=4),
        GrepLine(path="/w/a", number=9, text="hit", length=5_000),
        GrepLine(path="/w/b:c", number=1, text="hit", length=3),
    ]
    answer = findings.grep_matches(
        GrepResult(lines=lines, truncated=True), "content", "/w", "/w", limit=9_999, head_limit=4
    )
    assert answer == (
        'a-1-x\na:2:hit\n--\na:9:hit … [part of a line of 5,000 bytes]\n--\n"b:c":1:hit\n'
        "[3 matching lines · first 4, there are more · /w]"
    )


def test_search_answers_are_bounded() -> None:
    lines = [GrepLine(path="/w/a", number=number, text="x" * 8_000, length=8_000) for number in range(100)]
    answer = findings.grep_matches(GrepResult(lines=lines), "content", "/w", "/w", limit=30_000, head_limit=200)
    assert len(answer) <= 30_000
    assert "only the first 3 of 100 rows fit" in answer
    globbed = GlobResult(matches=[match("/w/" + "d" * 4_000) for _ in range(100)], total=100)
    assert len(findings.glob_matches(globbed, "/w", "/w", order="", limit=30_000)) <= 30_000
    entries = [FileEntry(name="n" * 255, path="/w", is_dir=False, size=1) for _ in range(1_000)]
    assert len(findings.listing(entries, "/w", limit=30_000)) <= 30_000
