"""Files beyond the suite's: ranges, edits that compare first, odd names, copying in and out, and what a hostile tree may try."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pydantic_ai_sandbox import (
    DockerSandbox,
    EditError,
    ResourceLimits,
    SupportsEdit,
    SupportsGlob,
    SupportsGrep,
    SupportsTextRange,
    SupportsVersionedWrite,
)

pytestmark = pytest.mark.docker


async def test_a_sandbox_has_the_abilities_it_claims(sandbox: DockerSandbox) -> None:
    for ability in (SupportsTextRange, SupportsEdit, SupportsGlob, SupportsGrep, SupportsVersionedWrite):
        assert isinstance(sandbox, ability)


async def test_a_range_of_lines_comes_with_what_is_around_it(sandbox: DockerSandbox) -> None:
    await sandbox.write_text("/workspace/f", "".join(f"line {n}\n" for n in range(1, 5001)) + "last")
    text = await sandbox.read_text("/workspace/f", offset=4999, limit=2)
    assert (list(text.lines), text.first, text.total, text.newline) == ([b"line 4999", b"line 5000"], 4999, 5001, False)
    assert list((await sandbox.read_text("/workspace/f", offset=9000)).lines) == []
    await sandbox.write_text("/workspace/long", "x" * 100_000 + "\nshort\n")
    text = await sandbox.read_text("/workspace/long")
    assert text.cut == {1: 100_000}
    assert text.lines[1] == b"short"
    await sandbox.write_text("/workspace/empty", "")
    text = await sandbox.read_text("/workspace/empty")
    assert (list(text.lines), text.total, text.size) == ([], 0, 0)
    await sandbox.write_bytes("/workspace/binary", b"\x7fELF\0\1\2")
    text = await sandbox.read_text("/workspace/binary")
    assert (text.binary, text.head) == (True, b"\x7fELF\0\1\2")


@pytest.mark.parametrize(("offset", "limit"), [(0, 1), (1, 0), (-1, 5)])
async def test_a_range_that_cannot_be_is_refused(sandbox: DockerSandbox, offset: int, limit: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        await sandbox.read_text("/etc/passwd", offset=offset, limit=limit)


async def test_an_edit_is_refused_when_the_file_changed(sandbox: DockerSandbox) -> None:
    await sandbox.write_text("/workspace/f", "a = 1\n")
    version = (await sandbox.read_text("/workspace/f")).version
    edit = await sandbox.edit("/workspace/f", "a = 1", "a = 2", expected_version=version)
    assert (edit.content, list(edit.lines)) == (b"a = 2\n", [1])
    with pytest.raises(EditError, match="changed since"):
        await sandbox.edit("/workspace/f", "a = 2", "a = 3", expected_version=version)
    with pytest.raises(EditError, match="changed since"):
        await sandbox.write_version("/workspace/f", b"a = 3\n", expected_version=version)
    written = await sandbox.write_version("/workspace/f", b"a = 3\n", expected_version=edit.version)
    assert not written.created
    await sandbox.remove("/workspace/f")
    again = await sandbox.write_version("/workspace/f", b"a = 4\n", expected_version=written.version)
    assert again.created


async def test_edits_that_race_lose_nothing(sandbox: DockerSandbox) -> None:
    await sandbox.write_text("/workspace/f", "".join(f"<{n}>\n" for n in range(20)))

    async def edit(number: int) -> None:
        while True:
            try:
                await sandbox.edit("/workspace/f", f"<{number}>", f"[{number}]")
            except EditError as error:
                assert "changed" in str(error)
            else:
                return

    await asyncio.gather(*(edit(number) for number in range(20)))
    assert await sandbox.read_bytes("/workspace/f") == b"".join(f"[{n}]\n".encode() for n in range(20))


async def test_a_write_that_is_interrupted_leaves_the_old_file(sandbox: DockerSandbox) -> None:
    await sandbox.write_bytes("/workspace/f", b"old")
    for delay in (0.0, 0.002, 0.01, 0.02):
        task = asyncio.create_task(sandbox.write_bytes("/workspace/f", b"n" * 50_000_000))
        await asyncio.sleep(delay)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    content = await sandbox.read_bytes("/workspace/f")
    assert content in (b"old", b"n" * 50_000_000)
    assert [entry.name for entry in await sandbox.list_dir("/workspace")] == ["f"]


ODD_NAMES = [
    b"with space", b"new\nline", b"tab\there", b"quote'\"", b"-rf", b"$(id)", b"caf\xc3\xa9", b"bad\xff\xfeutf8",
    b"\xed\xa0\x80", b"\x1b[31mred", b"a:b:c", b"*?[x]{y}", b"back\\slash", "\u202egnp.exe".encode(), b"x" * 255,
]  # fmt: skip


@pytest.mark.parametrize("raw", ODD_NAMES)
async def test_any_name_a_file_can_have_works_everywhere(sandbox: DockerSandbox, raw: bytes) -> None:
    name = os.fsdecode(raw)
    path = f"/workspace/{name}"
    await sandbox.write_bytes(path, b"needle")
    assert [entry.name for entry in await sandbox.list_dir("/workspace")] == [name]
    assert await sandbox.read_bytes(path) == b"needle"
    assert (await sandbox.stat(path)).size == 6
    assert await sandbox.realpath(path) == path
    assert [match.path for match in (await sandbox.glob("**")).matches] == [path]
    assert list((await sandbox.grep("needle")).files) == [path]
    assert (await sandbox.run(["cat", path])).stdout == "needle"
    await sandbox.remove(path)
    assert not await sandbox.exists(path)


@pytest.mark.parametrize("path", ["", "relative", "a/../b", "/nul\0byte"])
async def test_a_path_that_is_none_is_refused(sandbox: DockerSandbox, path: str) -> None:
    for operation in (sandbox.read_bytes, sandbox.stat, sandbox.list_dir, sandbox.make_dir, sandbox.remove):
        with pytest.raises(ValueError, match="path"):
            await operation(path)


async def test_a_full_workspace_is_enospc_and_keeps_the_old_file(make_sandbox: Callable[..., DockerSandbox]) -> None:
    sandbox = make_sandbox(limits=ResourceLimits.model_validate({"workspace": "4MiB"}))
    await sandbox.write_bytes("/workspace/f", b"old")
    with pytest.raises(OSError, match=r"(?i)no space left") as caught:
        await sandbox.write_bytes("/workspace/f", b"x" * 8 * 1024 * 1024)
    assert caught.value.errno == 28
    assert await sandbox.read_bytes("/workspace/f") == b"old"


async def test_search_bounds_and_mistakes(sandbox: DockerSandbox) -> None:
    await sandbox.run("for i in $(seq 300); do echo match > f$i.txt; done", shell=True)
    found = await sandbox.glob("*.txt")
    assert (len(found.matches), found.total) == (100, 300)
    lines = await sandbox.grep("match", mode="content", limit=10)
    assert (len(lines.lines), lines.truncated) == (10, True)
    with pytest.raises(ValueError, match="missing"):
        await sandbox.grep("(unclosed")
    with pytest.raises(FileNotFoundError):
        await sandbox.grep("x", "/workspace/nowhere")
    with pytest.raises(FileNotFoundError):
        await sandbox.glob("*", "/workspace/nowhere")


# --- copying


async def test_copying_in_and_out_keeps_trees_and_modes(sandbox: DockerSandbox, tmp_path: Path) -> None:
    source = tmp_path / "src"
    (source / "sub dir").mkdir(parents=True)
    (source / "a.py").write_text("a")
    (source / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (source / "run.sh").chmod(0o755)
    (source / "sub dir" / "b.bin").write_bytes(os.urandom(3_000_000))
    copied = await sandbox.copy_to(f"{tmp_path}/s*", "/workspace/in")
    assert sorted(copied) == [f"/workspace/in/src/{name}" for name in ("a.py", "run.sh", "sub dir/b.bin")]
    assert (await sandbox.run(["/workspace/in/src/run.sh"])).stdout == "ran\n"
    written = await sandbox.copy_from("/workspace/in/src", tmp_path / "out")
    assert len(written) == 3
    assert (tmp_path / "out/src/sub dir/b.bin").read_bytes() == (source / "sub dir/b.bin").read_bytes()
    (single,) = await sandbox.copy_from("/workspace/in/src/a.py", tmp_path / "out")
    assert single == tmp_path / "out/a.py"
    with pytest.raises(FileNotFoundError):
        await sandbox.copy_to(f"{tmp_path}/nothing*", "/workspace")
    with pytest.raises(FileNotFoundError):
        await sandbox.copy_from("/workspace/nothing", tmp_path)


async def test_a_path_to_copy_is_a_name_and_a_string_is_a_pattern(sandbox: DockerSandbox, tmp_path: Path) -> None:
    (tmp_path / "data[1].csv").write_text("odd name")
    (tmp_path / "data1.csv").write_text("what the pattern means")
    assert await sandbox.copy_to(tmp_path / "data[1].csv", "/workspace") == ["/workspace/data[1].csv"]
    assert await sandbox.copy_to(f"{tmp_path}/data[1].csv", "/workspace") == ["/workspace/data1.csv"]


async def test_an_edit_within_the_same_second_is_what_python_runs(sandbox: DockerSandbox) -> None:
    for value in ("1", "2", "3"):
        await sandbox.write_text("/workspace/module.py", f"x = {value}\n")
        assert (await sandbox.run(["python3", "-c", "import module; print(module.x)"])).stdout == f"{value}\n"


async def test_copying_out_follows_no_link_and_stays_in_its_bounds(sandbox: DockerSandbox, tmp_path: Path) -> None:
    await sandbox.run(
        "mkdir t; ln -s /etc/passwd t/link; ln -s / t/root; mkfifo t/fifo; echo x > t/file; truncate -s 1G t/sparse",
        shell=True,
    )
    with pytest.raises(OSError, match="larger than its limit"):
        await sandbox.copy_from("/workspace/t", tmp_path / "a", limit=1_000_000)
    assert sum(path.stat().st_size for path in (tmp_path / "a").rglob("*")) <= 1_000_000
    await sandbox.remove("/workspace/t/sparse")
    await sandbox.copy_from("/workspace/t", tmp_path / "b")
    assert [path.name for path in (tmp_path / "b/t").iterdir()] == ["file"]


async def test_a_mount_whose_source_is_a_link_to_the_host_is_refused(
    make_sandbox: Callable[..., DockerSandbox], tmp_path: Path
) -> None:
    (tmp_path / "innocent").symlink_to("/etc")
    for options in ({"workspace": tmp_path / "innocent"}, {"volumes": {str(tmp_path / "innocent"): "/data"}}):
        with pytest.raises(ValueError, match="hand the host"):
            await make_sandbox(**options).run(["true"])


async def test_a_missing_volume_is_an_error_and_is_not_created(
    make_sandbox: Callable[..., DockerSandbox], tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError):
        await make_sandbox(volumes={str(tmp_path / "missing"): "/data"}).run(["true"])
    assert not (tmp_path / "missing").exists()


async def test_a_volume_can_be_read_only(make_sandbox: Callable[..., DockerSandbox], tmp_path: Path) -> None:
    (tmp_path / "f").write_text("host")
    tmp_path.chmod(0o755)
    sandbox = make_sandbox(volumes={str(tmp_path): "/data:ro"})
    assert await sandbox.read_bytes("/data/f") == b"host"
    with pytest.raises(OSError, match=r"[Rr]ead-only|Permission"):
        await sandbox.write_bytes("/data/g", b"x")


async def test_links_planted_in_a_workspace_lead_nowhere_on_the_host(
    make_sandbox: Callable[..., DockerSandbox], tmp_path: Path, docker_api: Any
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("host secret")
    workspace = tmp_path / "workspace"
    sandbox = make_sandbox(workspace=workspace)
    await sandbox.run(["ln", "-s", str(secret), "/workspace/link"])
    await sandbox.run(["ln", "-s", "../secret", "/workspace/relative"])
    for name in ("link", "relative"):
        with pytest.raises(FileNotFoundError):
            await sandbox.read_bytes(f"/workspace/{name}")
