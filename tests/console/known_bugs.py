"""Bugs seen in other tools, each held against ours, on every workspace."""

from __future__ import annotations

import time

import pytest
from pydantic_ai.workspaces import Workspace, WorkspaceBackend

from pydantic_ai_sandbox.protocols import SupportsExecution

from .contract import OnAWorkspace, shell
from .scripted import ask, call, play


class KnownBugContract(OnAWorkspace):
    """One test per bug; subclass it and supply the fixture `console_backend`."""

    async def found(self, backend: WorkspaceBackend, workspace: Workspace, folder: str, pattern: str) -> set[str]:
        """What a glob finds in a small tree."""
        for name in ("top.py", "src/a.py", "src/x/b.py", "web/c.js", "web/d.ts"):
            await workspace.write_text(f"{folder}/{name}", "x\n")
        answer = await ask(backend, "glob", pattern=pattern, path=folder)
        return {line.removeprefix(f"{folder}/") for line in answer.lines[:-1]}

    async def test_grep_takes_full_not_basic_regular_expressions(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_text(f"{folder}/a.txt", "foo\nbar\nfoo|bar\n")
        answer = await ask(console_backend, "grep", pattern="^(foo|bar)+$", path=folder, output_mode="count")
        assert answer.lines[0] == f"{folder}/a.txt:2"

    async def test_braces_match(self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str) -> None:
        assert await self.found(console_backend, workspace, folder, "*.{js,ts}") == {"web/c.js", "web/d.ts"}

    async def test_a_star_does_not_cross_directories(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        assert await self.found(console_backend, workspace, folder, "src/*.py") == {"src/a.py"}

    async def test_two_stars_match_no_directory_too(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        assert await self.found(console_backend, workspace, folder, "src/**/*.py") == {"src/a.py", "src/x/b.py"}

    async def test_a_colon_in_a_name_is_no_separator(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_text(f"{folder}/a:1:b.txt", "x: hit\n")
        content, count = await play(
            console_backend,
            call("grep", pattern="hit", path=folder, output_mode="content"),
            call("grep", pattern="hit", path=folder, output_mode="count"),
        )
        assert content.lines[0] == f'"{folder}/a:1:b.txt":1:x: hit'
        assert count.lines[0] == f'"{folder}/a:1:b.txt":1'

    async def test_an_error_is_never_megabytes_long(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        long = "x" * 300_000
        await workspace.write_text(f"{folder}/a.txt", "x" * 1_000_000)
        answers = await play(
            console_backend,
            call("read", path=long),
            call("edit", path=f"{folder}/a.txt", old_string="y" * 300_000, new_string="z"),
            call("edit", path=f"{folder}/a.txt", old_string="x", new_string="z"),
            call("grep", pattern="(" + long[:100_000]),
            call("glob", pattern=long[:100_000]),
            call("ls", path=f"{folder}/{long}"),
        )
        assert [len(answer.text) < 10_000 for answer in answers] == [True] * 6

    async def test_truncation_does_not_lose_the_error_at_the_end(self, console_backend: WorkspaceBackend) -> None:
        answer = await ask(console_backend, "run", command="seq 1 100000; echo 'ValueError: here' >&2; exit 1")
        assert answer.lines[-2] == "ValueError: here"

    async def test_an_edit_does_not_corrupt_a_latin_1_file(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_bytes(f"{folder}/a.txt", "naïve café\n".encode("latin-1"))
        await ask(console_backend, "edit", path=f"{folder}/a.txt", old_string="café", new_string="thé")
        assert await workspace.read_bytes(f"{folder}/a.txt") == "naïve thé\n".encode("latin-1")

    async def test_crlf_files_match(self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str) -> None:
        await workspace.write_bytes(f"{folder}/a.txt", b"one\r\ntwo\r\n")
        await ask(console_backend, "edit", path=f"{folder}/a.txt", old_string="one\ntwo", new_string="1\n2")
        assert await workspace.read_bytes(f"{folder}/a.txt") == b"1\r\n2\r\n"

    async def test_an_empty_old_string_changes_nothing(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_text(f"{folder}/a.txt", "abc")
        await ask(console_backend, "edit", path=f"{folder}/a.txt", old_string="", new_string="-", replace_all=True)
        assert await workspace.read_text(f"{folder}/a.txt") == "abc"

    async def test_two_spellings_of_a_path_take_one_lock(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await shell(workspace, f"cd {folder} && printf '%s\\n' a b c d > s.txt && ln -s s.txt link")
        spellings = ["s.txt", "./s.txt", "link", "x/../s.txt"]
        calls = [
            call("edit", path=f"{folder}/{path}", old_string=letter, new_string=letter.upper())
            for path, letter in zip(spellings, "abcd", strict=True)
        ]
        await play(console_backend, calls)
        assert await workspace.read_text(f"{folder}/s.txt") == "A\nB\nC\nD\n"

    async def test_a_directory_with_a_space_can_be_reached(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        await workspace.write_text(f"{folder}/my dir/a.txt", "hit\n")
        answers = await play(
            console_backend,
            call("ls", path=f"{folder}/my dir"),
            call("read", path=f"{folder}/my dir/a.txt"),
            call("glob", pattern="my dir/*.txt", path=folder),
            call("grep", pattern="hit", path=f"{folder}/my dir"),
        )
        assert [answer.lines[0].removesuffix("  4 B") for answer in answers] == [
            "a.txt",
            "1\thit",
            f"{folder}/my dir/a.txt",
            f"{folder}/my dir/a.txt",
        ]

    async def test_a_background_child_does_not_delay_the_result(self, console_backend: WorkspaceBackend) -> None:
        if not isinstance(console_backend, SupportsExecution):
            pytest.skip("the frozen protocol lets a backend wait for a child that holds its output")
        started = time.monotonic()
        answer = await ask(console_backend, "run", command="sleep 30 & echo done")
        assert answer.body == "done"
        assert time.monotonic() - started < 20

    async def test_orphans_do_not_stay_as_zombies(self, console_backend: WorkspaceBackend) -> None:
        if not isinstance(console_backend, SupportsExecution):
            pytest.skip("whose child an orphan becomes is not ours to say on this workspace")
        _, zombies = await play(
            console_backend,
            call("run", command="for i in 1 2 3; do (sleep 0.05 &) ; done; sleep 0.5"),
            call("run", command="cat /proc/[0-9]*/stat 2>/dev/null | grep -c '(sleep) Z'"),
        )
        assert zombies.lines[0] == "0"

    async def test_git_does_not_complain_about_ownership(
        self, console_backend: WorkspaceBackend, workspace: Workspace, folder: str
    ) -> None:
        if (await workspace.run("command -v git", shell=True)).exit_code:
            pytest.skip("no git in this workspace")
        command = f"cd {folder} && git init -q . && GIT_TEST_ASSUME_DIFFERENT_OWNER=1 git status --short"
        assert (await ask(console_backend, "run", command=command)).last.startswith("[exit 0 · ")
