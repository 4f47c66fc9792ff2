"""Commands that are not simply waited for: streamed ones and background jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from .channel.answers import Ended
from .channel.client import RunnerClient
from .channel.frames import Kind
from .channel.multiplexer import Stream
from .channel.sinks import Flow
from .lifecycle import Lifecycle
from .protocols import BoundedText, CauseOfDeath, Execution, JobInfo, JobOutput, OutputChunk

__all__ = ("SandboxJob", "SandboxStream")

_WAIT_STEP = 30.0
"""Seconds that one request waits for a job's end."""

_EMPTY = BoundedText(head="")


class SandboxStream:
    """A `CommandStream` in a sandbox."""

    def __init__(self, stream: Stream, flow: Flow, cwd: str, limit: Callable[[CauseOfDeath], str | None]) -> None:
        self._stream = stream
        self._flow = flow
        self._cwd = cwd
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[OutputChunk]:
        while (piece := await self._flow.next(self._stream)) is not None:
            kind, data = piece
            yield OutputChunk(stream="stdout" if kind is Kind.DATA else "stderr", data=data)

    async def write(self, data: bytes) -> None:
        if self._stream.future.done():
            raise BrokenPipeError("the command has ended")
        await self._stream.send(data)

    async def close_stdin(self) -> None:
        self._stream.end()

    async def wait(self) -> Execution:
        async for _ in self:
            pass
        ended = await RunnerClient.ended(self._stream)
        return self._execution(ended)

    def _execution(self, ended: Ended) -> Execution:
        return Execution(
            exit_code=ended.exit_code,
            cause=ended.cause,
            stdout=_EMPTY,
            stderr=_EMPTY,
            duration=ended.duration,
            cwd=self._cwd,
            signal=ended.signal,
            limit=self._limit(ended.cause),
        )


class SandboxJob:
    """A `Job` in a sandbox."""

    def __init__(self, id: str, lifecycle: Lifecycle) -> None:
        self._id = id
        self._lifecycle = lifecycle

    def __repr__(self) -> str:
        return f"<job {self._id}>"

    @property
    def id(self) -> str:
        return self._id

    async def info(self) -> JobInfo:
        return (await self.output(0, limit=0)).job

    async def output(self, cursor: int = 0, *, limit: int = 65_536, wait: float = 0.0) -> JobOutput:
        return await self._lifecycle.do(lambda runner: runner.read_job(self._id, cursor, limit, wait))

    async def write(self, data: bytes, *, close: bool = False) -> None:
        await self._lifecycle.do(lambda runner: runner.write_job(self._id, data, close=close))

    async def stop(self) -> JobInfo:
        return await self._lifecycle.do(lambda runner: runner.stop_job(self._id))

    async def wait(self, timeout: float | None = None) -> JobInfo:
        async with asyncio.timeout(timeout):
            output = await self.output(0, limit=0)
            while output.job.running:
                # From the end of what it has printed: only news, or its end, wakes us.
                output = await self.output(output.job.output, limit=65_536, wait=_WAIT_STEP)
        return output.job
