"""What the console does on every workspace; subclass the classes and supply the fixture `console_backend`.

Every test keeps to a directory of its own, so one backend can serve them all.
"""

# ruff: noqa: RUF001 — typographic quotes are test data, and shell commands are what a workspace runs

from __future__ import annotations

import base64
import posixpath
import re
import uuid
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import pytest
from pydantic_ai.workspaces import SupportsFilesystem, Workspace, WorkspaceBackend

from pydantic_ai_sandbox.console import ConsoleToolset
from pydantic_ai_sandbox.protocols import SupportsGlob, SupportsJobs

from .scripted import Answer, Step, ask, call, offered, play

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
STATUS = re.compile(r"\[exit \d+ · \d+\.\d s · /.*\]")


class OnAWorkspace:
    """What all contracts share."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture
    def workspace(self, console_backend: WorkspaceBackend) -> Workspace:
        return Workspace(console_backend)

    @pytest.fixture
    async def folder(self, workspace: Workspace) -> AsyncGenerator[str]:
        """A directory for one test alone, relative to the working directory."""
        name = f"test-{uuid.uuid4().hex[:8]}"
        await workspace.make_dir(name)
        try:
            yield name
        finally:
            await workspace.remove(name)


async def shell(workspace: Workspace, command: str) -> str:
    """Arrange or look at something beside the tools."""
    result = await workspace.run(command, shell=True)
    assert result.exit_code == 0, result.stderr
    return result.stdout


class CommandContract(OnAWorkspace):
    """The tool `run`."""

    async def test_output_comes_first_and_one_status_line_last(self, console_backend: WorkspaceBackend) -> None:
        answer = await ask(console_backend, "run", command="printf 'one\\ntwo\\n'")
        assert answer.body == "one\ntwo"
        assert STATUS.fullmatch(answer.last)

    async def test_the_status_names_the_directory(
        self, console_backend: WorkspaceBackend, workspace: Workspace
    ) -> None:
        answer = await ask(console_backend, "run", command="pwd")
        assert answer.lines[0] == await workspace.working_dir()
        assert answer.last.endswith(f"· {answer.lines[0]}]")

    async def test_a_non_zero_exit_is_a_result(self, console_backend: WorkspaceBackend) -> None:
        answer = await ask(console_backend, "run", command="echo no; exit 3")
        assert answer.outcome == "success"
        assert answer.body == "no"
        assert answer.last.startswith("[exit 3 · ")

    async def test_a_missing_program_exits_127(self, console_backend: WorkspaceBackend) -> None:
        answer = await ask(console_backend, "run", command="no-such-program-here")
        assert answer.last.startswith("[exit 127 · ")

    async def test_silence_is_said(self, console_backend: WorkspaceBackend) -> None:
        assert (await ask(console_backend, "run", command="true")).body == "(no output)"

    async def test_standard_error_is_labelled_only_beside_output(self, console_backend: WorkspaceBackend) -> None:
        both, alone = await play(
            console_backend, call("run", command="echo out; echo err >&2"), call("run", command="echo err >&2")
        )
        assert both.body == "out\n[stderr]\nerr"
        assert alone.body == "err"

    async def test_standard_input_is_at_its_end(self, console_backend: WorkspaceBackend) -> None:
        assert (await ask(console_backend, "run", command="cat; echo end")).body == "end"

    async def test_the_environment_suits_a_reader_who_is_no_terminal(self, console_backend: WorkspaceBackend) -> None:
        names = ("TERM", "NO_COLOR", "PAGER", "GIT_PAGER", "PYTHONUNBUFFERED", "LANG", "GIT_CONFIG_VALUE_0")
        command = "; ".join(f'echo "${name}"' for name in names)
        answer = await ask(console_backend, "run", command=command)
        assert answer.body.split("\n") == ["dumb", "1", "cat", "cat", "1", "C.UTF-8", "*"]

    async def test_a_timeout_keeps_what_was_printed(self, console_backend: WorkspaceBackend) -> None:
        answer = await ask(console_backend, "run", command="echo before; sleep 30", timeout=0.5)
        assert answer.outcome == "success"
        assert answer.body == "before"
        # What it took, which is more on a busy machine.
        assert re.match(r"\[timed out after \d\.\d s; process tree killed · ", answer.last)

    @pytest.mark.parametrize("timeout", [0, -1, float("nan")])
    async def test_a_timeout_that_is_none_is_refused(self, console_backend: WorkspaceBackend, timeout: float) -> None:
        answer = await ask(console_backend, "run", command="true", timeout=timeout)
        assert answer.outcome == "retry"
        assert "timeout must be a positive number" in answer.text

    async def test_a_timeout_over_the_maximum_is_lowered_and_said(self, console_backend: WorkspaceBackend) -> None:
        toolset = ConsoleToolset[Any](max_timeout=60, timeout=60)
        (answer,) = await play(console_backend, call("run", command="true", timeout=1e9), toolset=toolset)
        assert "timeout lowered to 60 s, the maximum" in answer.last

    async def test_long_output_keeps_head_and_tail(self, console_backend: WorkspaceBackend) -> None:
        answer = await ask(console_backend, "run", command="seq 1 50000; echo the error at the end; exit 1")
        assert len(answer.text) <= 30_000
        assert answer.lines[:3] == ["1", "2", "3"]
        assert answer.lines[-2] == "the error at the end"
        (marker,) = (line for line in answer.lines if line.startswith("[…"))
        assert re.fullmatch(r"\[… [\d,]+ bytes omitted; output saved to /\S+ …\]", marker)

    async def test_the_marker_counts_what_is_missing(self, console_backend: WorkspaceBackend) -> None:
        answer = await ask(console_backend, "run", command="seq 1 50000")
        whole = "".join(f"{number}\n" for number in range(1, 50_001))
        omitted = next(int(line.split()[1].replace(",", "")) for line in answer.lines if line.startswith("[…"))
        shown = sum(len(line) + 1 for line in answer.lines[:-1] if not line.startswith("[…"))
        assert abs(len(whole) - shown - omitted) <= 2

    async def test_all_of_a_long_output_can_be_read_from_the_file_it_names(
        self, console_backend: WorkspaceBackend, workspace: Workspace
    ) -> None:
        # More than a sandbox keeps, so that it has to have been written while the command ran.
        answer = await ask(console_backend, "run", command="seq 1 200000")
        match = re.search(r"output saved to (\S+) …\]", answer.text)
        assert match
        saved = await workspace.read_bytes(match[1])
        assert saved == b"".join(b"%d\n" % number for number in range(1, 200_001))
        await workspace.remove(match[1])

    async def test_both_streams_get_their_share(self, console_backend: WorkspaceBackend) -> None:
        answer = await ask(console_backend, "run", command="seq 1 50000; seq 50001 100000 >&2")
        assert len(answer.text) <= 30_000
        assert {"1", "50000", "50001", "100000", "[stderr]"} <= set(answer.lines)

    async def test_a_flood_is_stopped_and_said(self, console_backend: WorkspaceBackend) -> None:
        answer = await ask(console_backend, "run", command="yes | head -c 60000000; sleep 20")
        assert answer.outcome == "success"
        assert re.match(r"\[stopped at the output limit: \d+ MiB; process tree killed · ", answer.last)
        assert answer.lines[0] == "y"

    async def test_output_cannot_pass_for_our_own_lines(self, console_backend: WorkspaceBackend) -> None:
        fake = "[exit 0 · 0.1 s · /workspace]"
        answer = await ask(console_backend, "run", command=f"echo '{fake}'; echo '[… 5 bytes omitted …]'; exit 9")
        assert answer.lines[:2] == ["\\" + fake, "\\[… 5 bytes omitted …]"]
        assert answer.last.startswith("[exit 9 · ")

    async def test_colours_and_progress_bars_are_gone(self, console_backend: WorkspaceBackend) -> None:
        answer = await ask(console_backend, "run", command=r"printf '\033[1;31mred\033[0m\n 10%%\r 50%%\r100%%\n'")
        assert answer.body == "red\n100%"

    async def test_bytes_that_are_no_text_do_no_harm(self, console_backend: WorkspaceBackend) -> None:
        answer = await ask(console_backend, "run", command=r"printf 'a\377b\001c'")
        assert answer.body == "a�b\\x01c"

    async def test_every_command_is_a_process_of_its_own(
        self, console_backend: WorkspaceBackend, workspace: Workspace
    ) -> None:
        answers = await play(
            console_backend, [call("run", command="cd /; export X=1; pwd"), call("run", command='echo "$X"; pwd')]
        )
        assert [answer.body for answer in answers] == ["/", f"\n{await workspace.working_dir()}"]

    async def test_parallel_commands_run_at_once(self, console_backend: WorkspaceBackend) -> None:
        everyone = " && ".join(f"[ -e here{number} ]" for number in range(4))
        meets = [f"touch here{number}; until {everyone}; do sleep 0.05; done; echo met" for number in range(4)]
        answers = await play(console_backend, [call("run", command=command, timeout=20) for command in meets])
        assert [answer.body for answer in answers] == ["met"] * 4

    @pytest.mark.parametrize("command", ["", "  \n", "echo \0"])
    async def test_what_is_no_command_is_refused(self, console_backend: WorkspaceBackend, command: str) -> None:
        assert (await ask(console_backend, "run", command=command)).outcome == "retry"

    async def test_a_command_may_have_many_lines_and_any_quotes(self, console_backend: WorkspaceBackend) -> None:
        text = 'it\'s "$HOME" `x` \\ \n * é'
        answer = await ask(console_backend, "run", command=f"cat <<'END'\n{text}\nEND")
        assert answer.body == text


class ReadContract(OnAWorkspace):
    """The tool `read`."""

    async def test_lines_are_numbered_and_the_last_line_says_how_many(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_text(f"{folder}/a.txt", "one\n\n\tthree\n")
        answer = await ask(console_backend, "read", path=f"{folder}/a.txt")
        assert answer.text == "1\tone\n2\t\n3\t\tthree\n[lines 1-3 of 3; end of file]"

    async def test_the_last_line_says_how_to_continue(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_text(f"{folder}/a.txt", "".join(f"{number}\n" for number in range(1, 5313)))
        first, second, last = await play(
            console_backend,
            call("read", path=f"{folder}/a.txt"),
            call("read", path=f"{folder}/a.txt", offset=2001, limit=2),
            call("read", path=f"{folder}/a.txt", offset=5312),
        )
        assert first.lines[1999] == "2000\t2000"
        assert first.last == "[lines 1-2000 of 5312; continue with offset=2001]"
        assert second.text == "2001\t2001\n2002\t2002\n[lines 2001-2002 of 5312; continue with offset=2003]"
        assert last.text == "5312\t5312\n[lines 5312-5312 of 5312; end of file]"

    async def test_an_offset_past_the_end_names_the_length(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_text(f"{folder}/a.txt", "one\ntwo\n")
        answer = await ask(console_backend, "read", path=f"{folder}/a.txt", offset=3)
        assert answer.outcome == "retry"
        assert "offset=3 is past the end" in answer.text
        assert "has 2 lines" in answer.text

    @pytest.mark.parametrize("arguments", [{"offset": 0}, {"limit": 0}, {"offset": -1}])
    async def test_numbers_below_one_are_refused(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str, arguments: dict[str, int]
    ) -> None:
        await workspace.write_text(f"{folder}/a.txt", "one\n")
        assert (await ask(console_backend, "read", path=f"{folder}/a.txt", **arguments)).outcome == "retry"

    async def test_an_empty_file_is_said(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_bytes(f"{folder}/empty", b"")
        assert "[empty file, 0 bytes · " in (await ask(console_backend, "read", path=f"{folder}/empty")).text

    async def test_a_missing_line_feed_at_the_end_is_said(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_text(f"{folder}/a.txt", "one\ntwo")
        answer = await ask(console_backend, "read", path=f"{folder}/a.txt")
        assert answer.last == "[lines 1-2 of 2; end of file; no line feed at the end]"

    async def test_a_long_line_is_cut_and_marked(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_text(f"{folder}/a.txt", "x" * 100_000 + "\nshort\n")
        answer = await ask(console_backend, "read", path=f"{folder}/a.txt")
        assert len(answer.lines[0]) < 2_100
        assert re.search(r"x… \[cut: the line has 100,000 (bytes|characters)\]$", answer.lines[0])
        assert answer.lines[1] == "2\tshort"

    async def test_one_answer_is_bounded_and_goes_on_where_it_stopped(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_text(f"{folder}/a.txt", "".join(f"{number:0100}\n" for number in range(1, 1001)))
        first = await ask(console_backend, "read", path=f"{folder}/a.txt")
        assert 25_000 < len(first.text) <= 30_000
        match = re.fullmatch(r"\[lines 1-(\d+) of 1000; continue with offset=(\d+)\]", first.last)
        assert match
        assert int(match[2]) == int(match[1]) + 1 == len(first.lines)

    async def test_line_endings_are_told_not_shown(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_bytes(f"{folder}/crlf", b"one\r\ntwo\r\n")
        await workspace.write_bytes(f"{folder}/mixed", b"one\r\ntwo\n")
        crlf, mixed = await play(
            console_backend, call("read", path=f"{folder}/crlf"), call("read", path=f"{folder}/mixed")
        )
        assert crlf.text == "1\tone\n2\ttwo\n[lines 1-2 of 2; end of file; CRLF line endings]"
        assert mixed.last == "[lines 1-2 of 2; end of file; mixed line endings, some CRLF]"

    @pytest.mark.parametrize(
        ("content", "shown"),
        [
            ("café\n".encode("latin-1"), "1\tcafé"),
            (b"\xef\xbb\xbfcaf\xc3\xa9\n", "1\tcafé"),
            (b"\xff\xfe" + "café\n".encode("utf-16-le"), "1\tcafé"),
            (b"\xfe\xff" + "café\n".encode("utf-16-be"), "1\tcafé"),
        ],
        ids=["latin-1", "utf-8 with mark", "utf-16-le", "utf-16-be"],
    )
    async def test_text_is_text_in_many_encodings(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str, content: bytes, shown: str
    ) -> None:
        await workspace.write_bytes(f"{folder}/a.txt", content)
        answer = await ask(console_backend, "read", path=f"{folder}/a.txt")
        assert answer.lines[0] == shown
        assert answer.last.startswith("[lines 1-1 of 1; end of file")

    async def test_control_characters_become_visible(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_text(f"{folder}/a.txt", "a\x1b[31mb\u202ec\n")
        answer = await ask(console_backend, "read", path=f"{folder}/a.txt")
        assert answer.lines[0] == "1\ta\\x1b[31mb\\u202ec"
        assert "control characters shown as \\xNN or \\uNNNN" in answer.last

    async def test_an_image_is_seen(self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str) -> None:
        await workspace.write_bytes(f"{folder}/plot.png", PNG)
        answer = await ask(console_backend, "read", path=f"{folder}/plot.png")
        assert [(image.media_type, image.data) for image in answer.images] == [("image/png", PNG)]
        assert answer.text.startswith(f"[image/png · {len(PNG)} B · /")

    async def test_an_image_that_is_too_large_is_described(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_bytes(f"{folder}/plot.png", PNG + bytes(4_000_000))
        answer = await ask(console_backend, "read", path=f"{folder}/plot.png")
        assert not answer.images
        assert answer.last.startswith("[image/png, not shown as text · 3.8 MiB · images are shown up to 3.6 MiB · ")

    async def test_other_binary_files_are_described(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_bytes(f"{folder}/db", b"SQLite format 3\0" + bytes(range(100)))
        answer = await ask(console_backend, "read", path=f"{folder}/db")
        assert answer.lines[0] == "00000000  53 51 4c 69 74 65 20 66 6f 72 6d 61 74 20 33 00  SQLite format 3."
        assert answer.last.startswith("[SQLite database, not shown as text · 116 B · /")

    async def test_a_missing_file_is_an_answer_with_near_names(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_text(f"{folder}/settings.py", "x\n")
        near, far = await play(
            console_backend,
            call("read", path=f"{folder}/setings.py"),
            call("read", path=f"{folder}/no/such/directory/x"),
        )
        assert near.outcome == far.outcome == "success"
        assert re.fullmatch(
            rf"No such file or directory: /.*/{folder}/setings\.py; did you mean /.*/{folder}/settings\.py\?", near.text
        )
        assert f"/{folder} exists)" in far.text

    async def test_a_directory_is_no_file(self, console_backend: WorkspaceBackend, folder: str) -> None:
        answer = await ask(console_backend, "read", path=folder)
        assert answer.outcome == "failed"
        assert answer.text.startswith("Is a directory, not a file: /")

    @pytest.mark.parametrize("path", ["a\0b", "~/x", "~"])
    async def test_what_is_no_path_is_refused(self, console_backend: WorkspaceBackend, path: str) -> None:
        assert (await ask(console_backend, "read", path=path)).outcome == "retry"

    async def test_names_may_have_spaces_quotes_and_line_feeds(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        name = 'a b/it\'s "x"\n$(touch pwned)\\.txt'
        await workspace.write_text(f"{folder}/{name}", "inside\n")
        answer = await ask(console_backend, "read", path=f"{folder}/{name}")
        assert answer.lines[0] == "1\tinside"


class WriteContract(OnAWorkspace):
    """The tool `write`."""

    async def test_it_creates_a_file_and_its_parents(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        answer = await ask(console_backend, "write", path=f"{folder}/new dir/a.py", content="x = 1\ny = 2\n")
        path = await workspace.resolve(f"{folder}/new dir/a.py")
        assert answer.text == f"Wrote 2 lines (12 bytes) to {path} (created)"
        assert await workspace.read_bytes(path) == b"x = 1\ny = 2\n"

    async def test_it_says_when_it_overwrote(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_text(f"{folder}/a.txt", "old\n")
        answer = await ask(console_backend, "write", path=f"{folder}/a.txt", content="é")
        assert re.fullmatch(r"Wrote 1 line \(2 bytes\) to /.*/a\.txt \(overwrote\)", answer.text)

    async def test_it_writes_through_a_symbolic_link(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await shell(workspace, f"cd {folder} && echo old > target && ln -s target link")
        await ask(console_backend, "write", path=f"{folder}/link", content="new")
        assert await shell(workspace, f"cd {folder} && test -L link && cat target") == "new"

    async def test_it_keeps_the_mode(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await shell(workspace, f"cd {folder} && echo old > a.sh && chmod 754 a.sh")
        await ask(console_backend, "write", path=f"{folder}/a.sh", content="new")
        assert (await shell(workspace, f"ls -l {folder}/a.sh")).startswith("-rwxr-xr--")

    async def test_a_file_that_changed_since_it_was_read_is_not_overwritten(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_text(f"{folder}/a.txt", "one\n")
        _, refused, _, written = await play(
            console_backend,
            call("read", path=f"{folder}/a.txt"),
            changed(workspace, f"{folder}/a.txt", "two\n"),
            call("write", path=f"{folder}/a.txt", content="three\n"),
            call("read", path=f"{folder}/a.txt"),
            call("write", path=f"{folder}/a.txt", content="three\n"),
        )
        assert refused.outcome == "retry"
        assert "changed since you last read it; read it again" in refused.text
        assert written.text.endswith("(overwrote)")

    async def test_a_file_that_was_removed_since_may_be_made_anew(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_text(f"{folder}/a.txt", "one\n")
        _, written = await play(
            console_backend,
            call("read", path=f"{folder}/a.txt"),
            lambda: workspace.remove(f"{folder}/a.txt"),
            call("write", path=f"{folder}/a.txt", content="three\n"),
        )
        assert written.text.endswith("(created)")

    async def test_the_models_own_writes_are_no_change(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        path = f"{folder}/a.txt"
        answers = await play(
            console_backend,
            call("write", path=path, content="one\n"),
            call("edit", path=path, old_string="one", new_string="two"),
            call("write", path=path, content="three\n"),
            call("edit", path=path, old_string="three", new_string="four"),
        )
        assert {answer.outcome for answer in answers} == {"success"}
        assert await workspace.read_text(path) == "four\n"

    async def test_a_directory_is_not_overwritten(self, console_backend: WorkspaceBackend, folder: str) -> None:
        answer = await ask(console_backend, "write", path=folder, content="x")
        assert answer.outcome == "failed"
        assert answer.text.startswith("Is a directory")

    async def test_parallel_writes_of_one_file_end_as_the_last_call(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await shell(workspace, f"cd {folder} && ln -s s.txt link")
        spellings = [f"{folder}/s.txt", f"./{folder}/s.txt", f"{folder}/link", f"{folder}/../{folder}/s.txt"]
        for _ in range(3):
            calls = [call("write", path=spellings[at % 4], content=f"{at}\n") for at in range(12)]
            answers = await play(console_backend, calls)
            assert {answer.outcome for answer in answers} == {"success"}
            assert await workspace.read_text(f"{folder}/s.txt") == "11\n"


def changed(workspace: Workspace, path: str, content: str) -> Callable[[], Coroutine[Any, Any, None]]:
    """A step of a script: somebody else writes a file."""

    async def step() -> None:
        await workspace.write_text(path, content)

    return step


class EditContract(OnAWorkspace):
    """The tool `edit`."""

    async def edit(
        self,
        backend: WorkspaceBackend,
        workspace: Workspace,
        folder: str,
        content: bytes,
        old: str,
        new: str,
        **options: bool,
    ) -> tuple[Answer, bytes]:
        """The answer to one edit, and the file after it."""
        await workspace.write_bytes(f"{folder}/file", content)
        answer = await ask(backend, "edit", path=f"{folder}/file", old_string=old, new_string=new, **options)
        return answer, await workspace.read_bytes(f"{folder}/file")

    async def test_it_replaces_exact_text_and_shows_the_place(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        content = "".join(f"line {number}\n" for number in range(1, 21)).encode()
        answer, after = await self.edit(console_backend, workspace, folder, content, "line 10\n", "ten\nand a half\n")
        assert after == content.replace(b"line 10\n", b"ten\nand a half\n")
        assert re.fullmatch(r"Edited /.*/file: 1 replacement at line 10", answer.lines[0])
        assert answer.lines[1:5] == ["7\tline 7", "8\tline 8", "9\tline 9", "10\tten"]
        assert answer.last == "15\tline 14"

    async def test_replace_all_replaces_all(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        answer, after = await self.edit(console_backend, workspace, folder, b"a\nb\na\n", "a", "c\nd", replace_all=True)
        assert after == b"c\nd\nb\nc\nd\n"
        assert answer.lines[0].endswith("2 replacements at lines 1, 4")

    async def test_text_that_is_not_there_gets_the_nearest_lines(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        content = b"import os\n\ndef load(path):\n    return open(path).read()\n"
        answer, after = await self.edit(
            console_backend, workspace, folder, content, "def load(path):\n  return open(path).read()", "x"
        )
        assert after == content
        assert answer.outcome == "retry"
        assert "found 0 occurrences of old_string; nearest lines 3-4 (only whitespace differs):\n" in answer.text
        assert "\n3\tdef load(path):\n4\t    return open(path).read()" in answer.text

    async def test_text_that_is_there_more_than_once_gets_the_lines(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        content = "".join("x = 1\n" if number in {4, 19, 77} else "y\n" for number in range(1, 81)).encode()
        answer, after = await self.edit(console_backend, workspace, folder, content, "x = 1", "x = 2")
        assert after == content
        assert "found 3, at lines 4, 19, 77" in answer.text

    async def test_an_empty_old_string_does_not_mangle_the_file(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        answer, after = await self.edit(console_backend, workspace, folder, b"abc\n", "", "x", replace_all=True)
        assert after == b"abc\n"
        assert answer.outcome == "retry"
        assert "old_string is empty" in answer.text

    async def test_nothing_to_change_is_said(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        answer, _ = await self.edit(console_backend, workspace, folder, b"abc\n", "abc", "abc")
        assert "the same" in answer.text

    @pytest.mark.parametrize(
        ("content", "old", "new", "expected"),
        [
            (b"a\r\nb\r\nc\r\n", "a\nb", "x\ny\nz", b"x\r\ny\r\nz\r\nc\r\n"),
            (b"a\r\nb\r\n", "b", "x\ny", b"a\r\nx\r\ny\r\n"),
            ("café = 1\nnaïve\n".encode("latin-1"), "café = 1", "thé = 2", "thé = 2\nnaïve\n".encode("latin-1")),
            (b"\x93quoted\x94 \x81\xff\n", "“quoted”", "‘q’", b"\x91q\x92 \x81\xff\n"),
            (b"\xef\xbb\xbfa = 1\n", "a = 1", "a = 2", b"\xef\xbb\xbfa = 2\n"),
            (
                b"\xff\xfe" + "é\r\nb\r\n".encode("utf-16-le"),
                "b",
                "c\nd",
                b"\xff\xfe" + "é\r\nc\r\nd\r\n".encode("utf-16-le"),
            ),
        ],
        ids=["CRLF matched", "CRLF written", "latin-1", "windows-1252", "byte order mark", "UTF-16"],
    )
    async def test_encoding_and_line_endings_stay(
        self,
        console_backend: WorkspaceBackend,
        workspace: Workspace,
        folder: str,
        content: bytes,
        old: str,
        new: str,
        expected: bytes,
    ) -> None:
        answer, after = await self.edit(console_backend, workspace, folder, content, old, new)
        assert answer.outcome == "success"
        assert after == expected

    async def test_the_mode_stays(self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str) -> None:
        await shell(workspace, f"cd {folder} && echo old > file && chmod 750 file")
        await ask(console_backend, "edit", path=f"{folder}/file", old_string="old", new_string="new")
        assert (await shell(workspace, f"ls -l {folder}/file")).startswith("-rwxr-x---")

    async def test_a_file_that_changed_since_it_was_read_is_not_edited(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        path = f"{folder}/a.txt"
        await workspace.write_text(path, "one\n")
        _, refused, _, made = await play(
            console_backend,
            call("read", path=path),
            changed(workspace, path, "one\ntwo\n"),
            call("edit", path=path, old_string="one", new_string="1"),
            call("read", path=path),
            call("edit", path=path, old_string="one", new_string="1"),
        )
        assert refused.outcome == "retry"
        assert "changed since you last read it; read it again" in refused.text
        assert made.outcome == "success"
        assert await workspace.read_text(path) == "1\ntwo\n"

    async def test_a_change_is_noticed_under_another_name_of_the_file(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await shell(workspace, f"cd {folder} && echo one > a.txt && ln -s a.txt link")
        _, refused = await play(
            console_backend,
            call("read", path=f"{folder}/a.txt"),
            changed(workspace, f"{folder}/a.txt", "one!\n"),
            call("edit", path=f"{folder}/link", old_string="one", new_string="1"),
        )
        assert "changed since you last read it" in refused.text

    async def test_a_file_never_read_may_be_edited(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        answer, after = await self.edit(console_backend, workspace, folder, b"one\n", "one", "1")
        assert (answer.outcome, after) == ("success", b"1\n")

    async def test_what_one_run_read_does_not_bind_another(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        path, toolset = f"{folder}/a.txt", ConsoleToolset[Any]()
        await workspace.write_text(path, "one\n")
        await play(console_backend, call("read", path=path), toolset=toolset)
        await workspace.write_text(path, "one two\n")
        edit = call("edit", path=path, old_string="one", new_string="1")
        (answer,) = await play(console_backend, edit, toolset=toolset)
        assert answer.outcome == "success"

    async def test_parallel_edits_of_one_file_all_happen_in_order(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await shell(workspace, f"cd {folder} && ln -s s.txt link")
        spellings = [f"{folder}/s.txt", f"./{folder}/s.txt", f"{folder}/link"]
        steps: list[Step] = [
            [
                call("write", path=spellings[0], content="n = 0\n"),
                *(
                    call("edit", path=spellings[at % 3], old_string=f"n = {at}\n", new_string=f"n = {at + 1}\n")
                    for at in range(12)
                ),
                call("read", path=spellings[1]),
            ]
        ]
        answers = await play(console_backend, *steps)
        assert [answer.outcome for answer in answers] == ["success"] * 14
        assert answers[-1].lines[0] == "1\tn = 12"

    async def test_a_missing_file_is_an_answer(self, console_backend: WorkspaceBackend, folder: str) -> None:
        answer = await ask(console_backend, "edit", path=f"{folder}/none", old_string="a", new_string="b")
        assert answer.outcome == "success"
        assert answer.text.startswith("No such file or directory: /")


class FindContract(OnAWorkspace):
    """The tools `ls`, `glob` and `grep`."""

    @pytest.fixture
    async def tree(self, workspace: Workspace, folder: str) -> str:
        """A small project."""
        for name, content in {
            "README.md": "# Title\nTODO one\n",
            "src/main.py": "import os\n\ndef main():\n    todo = 1\n    return todo\n",
            "src/deep/er/leaf.py": "def leaf():\n    return 'TODO'\n",
            "src/app.ts": "const a = 1\n",
            "src/app.js": "var a = 1\n",
            "my dir/a:b.txt": "colon: TODO\n",
            ".hidden.py": "hidden = 1\n",
            "build/out.py": "def built(): pass\n",
            ".gitignore": "build/\n*.log\n",
            "run.log": "TODO\n",
            ".git/config": "TODO\n",
        }.items():
            await workspace.write_text(f"{folder}/{name}", content)
        await workspace.write_bytes(f"{folder}/data.bin", b"\0TODO\n")
        return folder

    async def test_ls_shows_directories_and_sizes(self, console_backend: WorkspaceBackend, tree: str) -> None:
        answer = await ask(console_backend, "ls", path=f"{tree}/src")
        expected = ["app.js  10 B", "app.ts  12 B", "deep/", "main.py  52 B"]
        if not isinstance(console_backend, SupportsFilesystem):  # the shell that is used instead tells no sizes
            expected = [line.split()[0] for line in expected]
        assert answer.lines[:-1] == expected
        assert re.fullmatch(rf"\[4 entries · /.*/{tree}/src\]", answer.last)

    async def test_empty_is_not_missing(self, console_backend: WorkspaceBackend, folder: str) -> None:
        empty, missing = await play(console_backend, call("ls", path=folder), call("ls", path=f"{folder}/none"))
        assert empty.text.startswith("[empty directory · /")
        assert missing.text.startswith("No such file or directory: /")
        assert {empty.outcome, missing.outcome} == {"success"}

    async def test_ls_of_a_file_shows_the_file(self, console_backend: WorkspaceBackend, tree: str) -> None:
        assert (await ask(console_backend, "ls", path=f"{tree}/README.md")).lines[0] == "README.md  17 B"

    async def test_a_directory_with_a_space_is_reachable(self, console_backend: WorkspaceBackend, tree: str) -> None:
        listed, found = await play(
            console_backend,
            call("ls", path=f"{tree}/my dir"),
            call("grep", pattern="TODO", path=f"{tree}/my dir", output_mode="content"),
        )
        assert listed.lines[0].startswith('"a:b.txt"')
        assert found.lines[0] == f'"{tree}/my dir/a:b.txt":1:colon: TODO'

    async def test_a_long_listing_is_capped(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await shell(workspace, f"cd {folder} && i=0; while [ $i -lt 1312 ]; do : > f$i; i=$((i+1)); done")
        answer = await ask(console_backend, "ls", path=folder)
        assert answer.lines[-2] == "… 812 more"
        assert answer.last.startswith("[1,312 entries · ")

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("*.py", {".hidden.py", "src/main.py", "src/deep/er/leaf.py"}),
            ("*.{js,ts}", {"src/app.js", "src/app.ts"}),
            ("src/*.py", {"src/main.py"}),
            ("src/**/*.py", {"src/main.py", "src/deep/er/leaf.py"}),
            ("src/{main,deep/er/leaf}.py", {"src/main.py", "src/deep/er/leaf.py"}),
            ("**/leaf.*", {"src/deep/er/leaf.py"}),
            ("[!s]*.md", {"README.md"}),
            ("main.p?", {"src/main.py"}),
            ("*.log", set[str]()),
            ("build/**", set[str]()),
        ],
    )
    async def test_glob_finds(
        self, console_backend: WorkspaceBackend, tree: str, pattern: str, expected: set[str]
    ) -> None:
        answer = await ask(console_backend, "glob", pattern=pattern, path=tree)
        assert set(answer.lines[:-1]) == {f"{tree}/{name}" for name in expected}

    async def test_glob_takes_an_absolute_pattern(
        self, console_backend: WorkspaceBackend, workspace: Workspace, tree: str
    ) -> None:
        root = await workspace.resolve(tree)
        answer = await ask(console_backend, "glob", pattern=f"{root}/src/**/*.py")
        assert set(answer.lines[:-1]) == {f"{tree}/src/main.py", f"{tree}/src/deep/er/leaf.py"}

    async def test_glob_is_newest_first_where_times_are_known(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await shell(
            workspace, f"cd {folder} && touch -d '2020-01-01' b && touch -d '2022-01-01' a && touch -d '2021-01-01' c"
        )
        answer = await ask(console_backend, "glob", pattern="*", path=folder)
        names = [posixpath.basename(line) for line in answer.lines[:-1]]
        if isinstance(console_backend, SupportsGlob):
            assert names == ["a", "c", "b"]
            assert "newest first" in answer.last
        else:
            assert names == ["a", "b", "c"]
            assert "in order of path" in answer.last

    async def test_glob_is_capped_and_says_so(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await shell(workspace, f"cd {folder} && i=0; while [ $i -lt 150 ]; do : > f$i; i=$((i+1)); done")
        answer = await ask(console_backend, "glob", pattern="f*", path=folder)
        assert len(answer.lines) == 101
        assert answer.last.startswith("[150 files matched, first 100 shown; ")

    async def test_an_empty_pattern_is_the_models_to_mend(self, console_backend: WorkspaceBackend) -> None:
        assert (await ask(console_backend, "glob", pattern="")).outcome == "retry"

    async def test_a_glob_in_a_missing_directory_is_an_answer(
        self, console_backend: WorkspaceBackend, folder: str
    ) -> None:
        answer = await ask(console_backend, "glob", pattern="*", path=f"{folder}/none")
        assert answer.text.startswith("No such file or directory")

    async def test_grep_names_files_by_default(self, console_backend: WorkspaceBackend, tree: str) -> None:
        answer = await ask(console_backend, "grep", pattern="TODO", path=tree)
        assert answer.lines[:-1] == [
            f"{tree}/README.md",
            f'"{tree}/my dir/a:b.txt"',
            f"{tree}/src/deep/er/leaf.py",
        ]
        assert answer.last.startswith("[3 files · ")

    async def test_grep_shows_lines_with_context(self, console_backend: WorkspaceBackend, tree: str) -> None:
        answer = await ask(
            console_backend, "grep", pattern=r"^def \w+\(", path=f"{tree}/src", output_mode="content", context=1
        )
        assert answer.lines[:-1] == [
            f"{tree}/src/deep/er/leaf.py:1:def leaf():",
            f"{tree}/src/deep/er/leaf.py-2-    return 'TODO'",
            "--",
            f"{tree}/src/main.py-2-",
            f"{tree}/src/main.py:3:def main():",
            f"{tree}/src/main.py-4-    todo = 1",
        ]
        assert answer.last.startswith("[2 matching lines · ")

    async def test_grep_counts(self, console_backend: WorkspaceBackend, tree: str) -> None:
        answer = await ask(
            console_backend, "grep", pattern="todo", path=tree, output_mode="count", ignore_case=True, glob="*.py"
        )
        assert answer.lines[:-1] == [f"{tree}/src/deep/er/leaf.py:1", f"{tree}/src/main.py:2"]

    @pytest.mark.parametrize(
        ("pattern", "matches"),
        [
            (r"a+b?c|d{2}", ["aac", "dd"]),
            (r"\d+\.\d+", ["1.5"]),
            (r"(?i)HELLO", ["hello"]),
            (r"^$", [""]),
            (r"[0-9]", ["1.5"]),
        ],
    )
    async def test_grep_takes_full_regular_expressions(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str, pattern: str, matches: list[str]
    ) -> None:
        await workspace.write_text(f"{folder}/a.txt", "aac\ndd\n1.5\nhello\n\n")
        answer = await ask(console_backend, "grep", pattern=pattern, path=folder, output_mode="content")
        assert [line.split(":", 2)[2] for line in answer.lines[:-1]] == matches

    async def test_grep_takes_literal_text(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_text(f"{folder}/a.txt", "f(x)[0]\nfx0\n")
        answer = await ask(
            console_backend, "grep", pattern="f(x)[0]", path=f"{folder}/a.txt", output_mode="content", literal=True
        )
        assert answer.lines[:-1] == [f"{folder}/a.txt:1:f(x)[0]"]

    async def test_grep_is_limited_and_says_so(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_text(f"{folder}/a.txt", "hit\n" * 1000)
        answer = await ask(console_backend, "grep", pattern="hit", path=folder, output_mode="content", head_limit=7)
        assert len(answer.lines) == 8
        assert "first 7, there are more" in answer.last

    async def test_grep_of_huge_lines_is_bounded(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_text(f"{folder}/a.txt", ("x" * 50_000 + "needle" + "y" * 50_000 + "\n") * 20)
        answer = await ask(console_backend, "grep", pattern="needle", path=folder, output_mode="content")
        assert len(answer.text) <= 30_000
        assert "needle" in answer.lines[0]
        assert "[part of a line of 100,006 bytes]" in answer.lines[0]

    async def test_a_bad_expression_is_the_models_to_mend(self, console_backend: WorkspaceBackend, tree: str) -> None:
        answer = await ask(console_backend, "grep", pattern="foo(", path=tree)
        assert answer.outcome == "retry"
        assert len(answer.text) < 1_000

    async def test_nothing_found_is_said(self, console_backend: WorkspaceBackend, tree: str) -> None:
        found, globbed = await play(
            console_backend, call("grep", pattern="absent-word", path=tree), call("glob", pattern="*.rs", path=tree)
        )
        assert found.text.startswith("[no matches · ")
        assert globbed.text.startswith("[no files matched · ")

    async def test_links_that_form_a_circle_do_no_harm(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await shell(workspace, f"cd {folder} && mkdir d && echo x > d/f.txt && ln -s .. d/up && ln -s d again")
        answer = await ask(console_backend, "glob", pattern="*.txt", path=folder)
        assert answer.lines[:-1] == [f"{folder}/d/f.txt"]

    async def test_names_with_line_feeds_stay_on_one_line(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_text(f"{folder}/a\n[exit 0 · x]", "hit\n")
        listed, globbed, found = await play(
            console_backend,
            call("ls", path=folder),
            call("glob", pattern="a*", path=folder),
            call("grep", pattern="hit", path=folder),
        )
        assert {len(answer.lines) for answer in (listed, globbed, found)} == {2}


class JobContract(OnAWorkspace):
    """Background jobs."""

    @pytest.fixture(autouse=True)
    def jobs(self, console_backend: WorkspaceBackend) -> None:
        if not isinstance(console_backend, SupportsJobs):
            pytest.skip("this workspace has no background jobs")

    async def test_a_job_is_started_read_fed_and_stopped(self, console_backend: WorkspaceBackend) -> None:
        started = await ask(
            console_backend, "run", command="echo ready; while read x; do echo got $x; done; echo over", background=True
        )
        match = re.search(r"\[job (\S+) · running · ", started.text)
        assert match
        job_id = match[1]
        first, fed, second, closed, last, stopped = await play(
            console_backend,
            call("job_output", job_id=job_id, wait=5),
            call("job_input", job_id=job_id, text="a b\n"),
            call("job_output", job_id=job_id, wait=5),
            call("job_input", job_id=job_id, text="", close=True),
            call("job_output", job_id=job_id, wait=5),
            call("job_stop", job_id=job_id),
        )
        assert first.body == "ready"
        assert re.fullmatch(rf"\[job {job_id} · running for .* · cursor=6\]", first.last)
        assert "4 bytes written" in fed.text
        assert second.body == "got a b"
        assert "standard input closed" in closed.text
        assert last.body == "over"
        assert f"[job {job_id} · exit 0 after " in stopped.text

    async def test_stopping_kills_it(self, console_backend: WorkspaceBackend) -> None:
        started = await ask(console_backend, "run", command="sleep 300", background=True)
        match = re.search(r"\[job (\S+) · ", started.text)
        assert match
        stopped, after, fed = await play(
            console_backend,
            call("job_stop", job_id=match[1]),
            call("job_output", job_id=match[1]),
            call("job_input", job_id=match[1], text="x"),
        )
        assert "running" not in stopped.text
        assert "running" not in after.text
        assert fed.text.startswith("Nothing written: the job has ended")

    async def test_an_unknown_job_is_the_models_to_mend(self, console_backend: WorkspaceBackend) -> None:
        answer = await ask(console_backend, "job_output", job_id="nope")
        assert answer.outcome == "retry"
        assert "no job 'nope'" in answer.text

    async def test_long_output_comes_in_pieces_that_fit(self, console_backend: WorkspaceBackend) -> None:
        started = await ask(console_backend, "run", command="seq 1 20000", background=True)
        match = re.search(r"\[job (\S+) · ", started.text)
        assert match
        read = call("job_output", job_id=match[1], wait=5)
        answers = await play(console_backend, *[read] * 6)
        assert all(len(answer.text) <= 30_000 for answer in answers)
        joined = "".join(answer.body for answer in answers if answer.body != "(no new output)")
        assert joined.replace("\n", "") == "".join(str(number) for number in range(1, 20_001))

    async def test_the_job_tools_are_offered(self, console_backend: WorkspaceBackend) -> None:
        tools = await offered(console_backend)
        assert {"job_output", "job_input", "job_stop"} <= set(tools)
        assert "background" in tools["run"].parameters_json_schema["properties"]
