"""Commands beyond the suite's: environment, directory, input, live output, background jobs, and the mistakes of callers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from pydantic_ai_sandbox import DockerEngine, DockerSandbox, SupportsExecution, SupportsJobs, SupportsStreaming

pytestmark = pytest.mark.docker


async def test_a_sandbox_has_the_abilities_it_claims(sandbox: DockerSandbox) -> None:
    for ability in (SupportsExecution, SupportsStreaming, SupportsJobs):
        assert isinstance(sandbox, ability)


async def test_directory_environment_and_input(sandbox: DockerSandbox) -> None:
    await sandbox.make_dir("/workspace/a dir")
    result = await sandbox.run(
        ["sh", "-c", 'pwd; echo "$X"; cat'], cwd="/workspace/a dir", env={"X": "ünï\udcff"}, stdin=b"in\xffput"
    )
    assert result.stdout == "/workspace/a dir\nünï\ufffd\nin\ufffdput"


async def test_an_environment_given_to_the_sandbox_reaches_every_command(
    make_sandbox: Callable[..., DockerSandbox],
) -> None:
    sandbox = make_sandbox(env={"GREETING": "hello", "LANG": "C"})
    assert (await sandbox.run('echo "$GREETING $LANG"', shell=True)).stdout == "hello C\n"
    assert (await sandbox.run('echo "$GREETING"', shell=True, env={"GREETING": "bye"})).stdout == "bye\n"


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        ("true", {}, TypeError),
        (["true"], {"shell": True}, TypeError),
        ([], {}, ValueError),
        ("", {"shell": True}, ValueError),
        (["true"], {"timeout": 0}, ValueError),
        (["true"], {"timeout": -1}, ValueError),
        (["true"], {"timeout": math.inf}, ValueError),
        (["true"], {"timeout": math.nan}, ValueError),
        (["true"], {"cwd": "relative"}, ValueError),
        (["true"], {"cwd": "/no/such/dir"}, FileNotFoundError),
        (["true"], {"cwd": "/etc/passwd"}, NotADirectoryError),
        (["nul\0byte"], {}, ValueError),
        (["true"], {"env": {"A": "nul\0byte"}}, ValueError),
        (["true"], {"env": {"A=B": "x"}}, ValueError),
        (["x" * 300_000], {}, ValueError),
    ],
)
async def test_a_callers_mistake_is_a_typed_error_and_harms_nothing(
    sandbox: DockerSandbox, arguments: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await sandbox.run(arguments, **options)
    assert (await sandbox.run(["echo", "fine"])).stdout == "fine\n"


async def test_programs_that_cannot_be_run_are_results(sandbox: DockerSandbox) -> None:
    await sandbox.write_bytes("/workspace/data", b"not a program")
    missing = await sandbox.run(["no-such-program"])
    assert (missing.exit_code, "no-such-program" in missing.stderr) == (127, True)
    assert (await sandbox.run(["/workspace/data"])).exit_code == 126


async def test_an_image_without_a_shell_says_so(make_sandbox: Callable[..., DockerSandbox], scratch: str) -> None:
    sandbox = make_sandbox(image=scratch)
    result = await sandbox.run("echo x", shell=True)
    assert result.exit_code == 127
    assert "/bin/sh" in result.stderr
    await sandbox.write_text("/workspace/f", "files work without any program\n")
    assert await sandbox.read_bytes("/workspace/f") == b"files work without any program\n"
    assert [match.path for match in (await sandbox.glob("*")).matches] == ["/workspace/f"]
    assert (await sandbox.grep("without")).files == {"/workspace/f": 0}


async def test_output_comes_as_it_is_printed_and_input_goes_in(transport: DockerEngine) -> None:
    async with DockerSandbox(engine=transport, idle_timeout=60) as sandbox:
        script = "while read line; do echo got $line; echo err $line >&2; done; exit 3"
        async with sandbox.stream(script, shell=True) as stream:
            chunks = aiter(stream)
            for word in ("one", "two"):
                await stream.write(f"{word}\n".encode())
                seen = {(chunk.stream, chunk.data) for chunk in [await anext(chunks), await anext(chunks)]}
                assert seen == {("stdout", f"got {word}\n".encode()), ("stderr", f"err {word}\n".encode())}
            await stream.close_stdin()
            execution = await stream.wait()
        assert (execution.exit_code, execution.cause) == (3, "exit")


async def test_leaving_a_stream_stops_its_command(sandbox: DockerSandbox) -> None:
    async with sandbox.stream("echo $$; sleep 600", shell=True) as stream:
        pid = (await anext(aiter(stream))).data.decode().strip()
    for _ in range(100):
        if (await sandbox.run(["kill", "-0", pid])).exit_code != 0:
            return
        await asyncio.sleep(0.02)
    pytest.fail("the command still runs")


async def test_a_stream_runs_into_its_timeout(sandbox: DockerSandbox) -> None:
    async with sandbox.stream(["sleep", "600"], timeout=0.3) as stream:
        execution = await stream.wait()
    assert execution.cause == "timeout"


async def test_writing_to_a_command_that_has_ended_is_a_broken_pipe(sandbox: DockerSandbox) -> None:
    async with sandbox.stream(["true"]) as stream:
        await stream.wait()
        with pytest.raises(BrokenPipeError):
            await stream.write(b"x")


async def test_a_slow_reader_makes_the_command_wait(sandbox: DockerSandbox) -> None:
    async with sandbox.stream("yes", shell=True) as stream:
        await anext(aiter(stream))
        await asyncio.sleep(0.5)
        assert (await sandbox.usage()).runner_rss < 32 * 1024 * 1024


async def test_a_job_runs_behind_is_read_by_cursor_and_takes_input(sandbox: DockerSandbox) -> None:
    job = await sandbox.start_job("echo ready; while read l; do echo got $l; done; exit 5", shell=True)
    first = await job.output(wait=10)
    assert (first.data, first.skipped, first.job.running) == (b"ready\n", 0, True)
    await job.write(b"hello\n")
    second = await job.output(first.cursor, wait=10)
    assert second.data == b"got hello\n"
    await job.write(b"bye\n", close=True)
    info = await job.wait(10)
    assert (info.exit_code, info.cause, info.running) == (5, "exit", False)
    assert (await job.output(second.cursor)).data == b"got bye\n"
    assert (await job.output()).data == b"ready\ngot hello\ngot bye\n"
    with pytest.raises(BrokenPipeError):
        await job.write(b"late\n")
    assert [info.id for info in await sandbox.jobs()] == [job.id]


async def test_stopping_a_job_takes_its_tree(sandbox: DockerSandbox) -> None:
    job = await sandbox.start_job("trap '' TERM; sleep 600 & sleep 600", shell=True)
    info = await job.stop()
    assert info.running is False
    assert (await sandbox.usage()).jobs == 0
    assert (await job.stop()).cause == info.cause


async def test_a_job_that_prints_more_than_is_kept_says_how_much_is_missing(sandbox: DockerSandbox) -> None:
    job = await sandbox.start_job("seq 400000", shell=True)
    await job.wait(30)
    output = await job.output()
    total = (await job.info()).output
    assert total > 2 * 1024 * 1024
    assert output.skipped == total - 1024 * 1024
    rest, cursor = b"", output.cursor
    while cursor < total:
        piece = await job.output(cursor)
        rest, cursor = rest + piece.data, piece.cursor
    assert rest.endswith(b"399999\n400000\n")


async def test_an_unknown_job_is_a_lookup_error(sandbox: DockerSandbox) -> None:
    with pytest.raises(LookupError):
        await sandbox.job("j999").info()


async def test_long_output_keeps_both_ends_and_spills_to_a_file(sandbox: DockerSandbox) -> None:
    execution = await sandbox.execute("seq 300000; echo oops >&2; exit 3", shell=True, spill="/tmp/spill/out.txt")
    assert execution.stdout.head.startswith("1\n2\n")
    assert execution.stdout.tail.endswith("299999\n300000\n")
    assert execution.stdout.omitted > 1024 * 1024
    assert (execution.stderr.head, execution.exit_code, execution.spilled_to) == ("oops\n", 3, "/tmp/spill/out.txt")
    assert (
        await sandbox.run(["sh", "-c", "grep -c . /tmp/spill/out.txt; tail -1 /tmp/spill/out.txt"])
    ).stdout.startswith("300001\n")
    short = await sandbox.execute("echo short", shell=True, spill="/tmp/never")
    assert short.spilled_to is None
    assert not await sandbox.exists("/tmp/never")


async def test_more_commands_than_can_run_at_once_take_turns(sandbox: DockerSandbox) -> None:
    results = await asyncio.gather(*(sandbox.run(["echo", str(n)]) for n in range(1000)))
    assert [int(result.stdout) for result in results] == list(range(1000))
    # One that is cancelled while it waits, or while it runs, frees its place.
    sleepers = [asyncio.create_task(sandbox.run(["sleep", "600"])) for _ in range(220)]
    await asyncio.sleep(0.5)
    for sleeper in sleepers:
        sleeper.cancel()
    await asyncio.gather(*sleepers, return_exceptions=True)
    assert (await sandbox.run(["echo", "next"], timeout=30)).stdout == "next\n"


async def test_usage_and_logs(sandbox: DockerSandbox) -> None:
    usage = await sandbox.usage()
    assert usage.memory_limit == 1024**3
    assert 0 < usage.memory < 200 * 1024 * 1024
    assert usage.pids < 40
    assert usage.disk_total == 512 * 1024 * 1024
    assert isinstance(await sandbox.logs(), str)
