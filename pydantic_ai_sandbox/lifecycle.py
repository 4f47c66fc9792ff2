"""The life of one sandbox's container, as seen from a backend: made on first use, reached by a channel per event loop."""

from __future__ import annotations

import asyncio
import re
import secrets
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from pydantic_ai.messages import WorkspaceRef
from pydantic_ai.workspaces import WorkspaceUnavailableError

from .channel.client import RunnerClient
from .channel.multiplexer import Channel
from .engines.base import Connection, ContainerInfo, Engine, Progress, UnknownContainerError, completed
from .errors import ChannelError
from .spec import ContainerSpec, RuntimeConfig

__all__ = ("Blueprint", "Lifecycle", "Maker", "filled_in")

T = TypeVar("T")

_HELLO_TIMEOUT = 10.0
"""Seconds for the runner's greeting."""

_DEATH_NOTICE = 2.0
"""Seconds that the engine may take to notice that a container has ended whose stream just broke off."""

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,120}")

_ENDINGS = 5
"""Times in a row that a session's container may end under a call before the call fails."""

_GOODBYES = {
    "idle": "it ended after not being used for its idle timeout of {idle} s",
    "lifetime": "it reached its maximum lifetime of {lifetime} s",
    "retired": "it was not in use and had to make room",
}


class Maker(Protocol):
    """Makes the container of a sandbox that is more than one container, where that takes more than asking the engine."""

    def make(self, spec: ContainerSpec, name: str) -> tuple[ContainerInfo, bool]:
        """The container, and whether it was made just now; blocks.

        Raises:
            UnknownContainerError: The name belongs to somebody else's.
        """
        ...

    def owns(self, info: ContainerInfo) -> bool:
        """Whether a container is this sandbox's, and not merely one that has its name or its id."""
        ...

    async def admit(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Make an attempt to reach the container, which may call `make`, when it is this sandbox's turn."""
        ...


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """What a container is to be made from, before anything was looked up."""

    runtime: RuntimeConfig | Callable[[], RuntimeConfig] | str
    """A runtime, how to find one, or an image reference."""
    spec: ContainerSpec
    """Everything else; its image and user are filled in on first use."""
    name: str | None = None
    """The sandbox's name; a random one if `None`."""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    """Who it belongs to, recorded at the container."""
    identity: WorkspaceRef | None = None
    """What the sandbox is, where that is more than one container: a container that has ended is then replaced by a new one
    of the same name. Without it the container is the identity, and its end is the sandbox's."""
    maker: Maker | None = None
    """Who makes the container; by default the engine alone, at once."""
    known: Callable[[], ContainerSpec | None] = lambda: None
    """The spec with its image and its runtime's variables, where somebody found that out a moment ago."""

    def container_name(self) -> str:
        """The container's name.

        Raises:
            ValueError: The sandbox's name is not one that a container can have.
        """
        name = self.name if self.name is not None else secrets.token_hex(6)
        if not _NAME.fullmatch(name):
            raise ValueError(f"a sandbox's name consists of letters, digits, '_', '.' and '-', got {name!r}")
        return f"sandbox-{name}"


class Lifecycle:
    """Creates, attaches to, reaches and ends one container. Building it does no I/O.

    Any number of tasks, event loops and threads may use it: the container is made once, and every event loop gets a
    channel of its own.
    """

    def __init__(
        self, engine: Engine, blueprint: Blueprint, ref: WorkspaceRef | None, progress: Progress | None = None
    ) -> None:
        if ref is not None and ref.provider != engine.provider:
            raise ValueError(f"the ref belongs to {ref.provider!r}, this is {engine.provider!r}")
        self.engine = engine
        self._blueprint = blueprint
        self._container_name = blueprint.container_name()
        self._progress = progress
        self._lock = threading.Lock()
        self._ref = ref
        self._info: ContainerInfo | None = None
        self._created = False
        self._filled_in: ContainerSpec | None = None
        self._ended: str | None = None
        self._clients: dict[asyncio.AbstractEventLoop, tuple[RunnerClient, Connection]] = {}
        self._connecting: dict[asyncio.AbstractEventLoop, _Connecting] = {}

    @property
    def ref(self) -> WorkspaceRef | None:
        """The sandbox's identity, once it has one."""
        return self._blueprint.identity or self._ref

    @property
    def info(self) -> ContainerInfo | None:
        """The container when it was last looked at, once there is one."""
        return self._info

    @property
    def ended(self) -> bool:
        """Whether it was ended through this object."""
        return self._ended is not None

    @property
    def transport(self) -> str | None:
        """How the runner is reached, once it is."""
        reached = (connection for client, connection in tuple(self._clients.values()) if client.channel.usable)
        return next((connection.transport for connection in reached), None)

    # --- use

    async def client(self) -> RunnerClient:
        """The runner, reached from the running event loop.

        Raises:
            WorkspaceUnavailableError: The container is gone.
            SandboxError: It could not be made or reached.
        """
        loop = asyncio.get_running_loop()
        known = self._clients.get(loop)
        if known is not None and known[0].channel.usable:
            return known[0]
        self._check_ended()
        connecting = self._connecting.get(loop)
        if connecting is None:
            connecting = self._connecting[loop] = _Connecting(loop.create_task(self._reach(loop)))
            connecting.task.add_done_callback(lambda _: self._forget(loop, connecting))
        try:
            return await connecting.wait()
        except asyncio.CancelledError:
            if connecting.give_up():
                # Whoever comes next begins anew.
                self._forget(loop, connecting)
            raise

    def _forget(self, loop: asyncio.AbstractEventLoop, connecting: _Connecting) -> None:
        if self._connecting.get(loop) is connecting:
            del self._connecting[loop]

    async def do(self, call: Callable[[RunnerClient], Awaitable[T]]) -> T:
        """Have the runner do something; a channel that breaks off is explained by what became of the container.

        Raises:
            WorkspaceUnavailableError: The container is gone.
        """
        for _ in range(_ENDINGS):
            client = await self.client()
            try:
                return await call(client)
            except ChannelError as error:
                if self._blueprint.identity is None or not client.never_begun:
                    raise await self.explain(client, error) from error
        raise WorkspaceUnavailableError("the sandbox is gone: its container ended again and again before it was used")

    async def explain(self, client: RunnerClient, error: ChannelError) -> Exception:
        """What is to be raised for a broken channel: that the container is gone if it is, else `error` itself."""
        if client.channel.usable:
            return error
        info = await self.submit(self._watch_end)
        if info is not None and info.running:
            return error
        return WorkspaceUnavailableError(self._obituary(client))

    def _obituary(self, client: RunnerClient) -> str:
        reason = _GOODBYES.get(client.channel.goodbye or "")
        if reason is None or self._info is None:
            return "the sandbox is gone: its container was stopped or removed"
        spec = self._info.spec
        return "the sandbox is gone: " + reason.format(idle=spec.idle_timeout, lifetime=spec.max_lifetime)

    def _watch_end(self) -> ContainerInfo | None:
        """Look at the container until it has ended, but not for long; `None` if it is gone."""
        assert self._info is not None
        give_up = time.monotonic() + _DEATH_NOTICE
        while True:
            try:
                info = self.engine.inspect(self._info.id)
            except UnknownContainerError:
                return None
            if not info.running or time.monotonic() > give_up:
                return info
            time.sleep(0.02)

    # --- connecting

    async def _reach(self, loop: asyncio.AbstractEventLoop) -> RunnerClient:
        self._forget_closed_loops()
        for _ in range(_ENDINGS):
            try:
                return await self._connect(loop)
            except _EndedMeanwhileError:
                continue
        raise WorkspaceUnavailableError(
            "the sandbox is gone: its container ended again and again before it was reached"
        )

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> RunnerClient:
        before = self._clients.pop(loop, None)
        maker = self._blueprint.maker
        try:
            connection = await (self._opened() if maker is None else maker.admit(self._opened))
        except WorkspaceUnavailableError as error:
            # The runner's own word, if it said one, is better than the engine's "no such container".
            if before is not None and before[0].channel.goodbye is not None:
                raise WorkspaceUnavailableError(self._obituary(before[0])) from error
            raise
        channel = Channel()
        protocol = connection.wrap(channel)
        if connection.sock.family == getattr(socket, "AF_UNIX", None):
            await loop.create_unix_connection(lambda: protocol, sock=connection.sock)
        else:
            await loop.create_connection(lambda: protocol, sock=connection.sock)
        client = RunnerClient(channel)
        try:
            await channel.hello(_HELLO_TIMEOUT)
        except ChannelError as error:
            channel.close()
            explained = await self.explain(client, error)
            if self._blueprint.identity is not None and isinstance(explained, WorkspaceUnavailableError):
                raise _EndedMeanwhileError from error
            raise explained from error
        except asyncio.CancelledError:
            channel.close()
            raise
        self._clients[loop] = (client, connection)
        return client

    async def _opened(self) -> Connection:
        return await completed(self.engine.submit(self._open), lambda connection: connection.sock.close())

    def _open(self) -> Connection:
        """Make sure that the container is there and runs, and open a stream to it; blocks."""
        # Before the lock, so that ending the sandbox need not wait for an image to be built.
        if self._ref is None and self._filled_in is None:
            self._filled_in = self._blueprint.known() or self._fill_in()
        with self._lock:
            try:
                info = self._info = self._present()
            except UnknownContainerError as error:
                raise WorkspaceUnavailableError(f"the sandbox is gone: {error}") from error
            try:
                return self.engine.connect(info.id)
            except UnknownContainerError as error:
                if self._blueprint.identity is not None:
                    raise _EndedMeanwhileError from error
                raise WorkspaceUnavailableError(f"the sandbox is gone: {error}") from error

    def _present(self) -> ContainerInfo:
        """The container, running."""
        self._check_ended()
        if self._ref is not None:
            try:
                return self._running(self._look(self._ref.id))
            except UnknownContainerError:
                if self._blueprint.identity is None:
                    raise
        return self._running(self._create())

    def _look(self, id: str) -> ContainerInfo:
        if self._info is not None and self._info.status == "created":
            # Created by us, but its start failed: nothing to look up, only to try again.
            return self._info
        info = self.engine.inspect(id)
        maker = self._blueprint.maker
        if maker is not None and not maker.owns(info):
            raise UnknownContainerError("its container belongs to somebody else")
        return info

    def _running(self, info: ContainerInfo) -> ContainerInfo:
        if not info.running:
            if info.status != "created" and not info.spec.persistent:
                raise UnknownContainerError(f"its container has ended ({info.status})")
            self.engine.start(info.id)
        return replace(info, running=True, status="running")

    def _fill_in(self) -> ContainerSpec:
        """The spec with its image; may take minutes, and ends early when the sandbox does."""
        runtime = self._blueprint.runtime
        if callable(runtime):
            runtime = runtime()
        return filled_in(self._blueprint.spec, runtime, self.engine.resolve_image(runtime, self._report))

    def _report(self, event: Any) -> None:
        # Raising in the midst of it is how pulling or building is broken off.
        self._check_ended()
        if self._progress is not None:
            self._progress(event)

    def _check_ended(self) -> None:
        if self._ended is not None:
            raise WorkspaceUnavailableError(self._ended)

    def _create(self) -> ContainerInfo:
        assert self._filled_in is not None
        info, self._created = self._make(self._filled_in)
        # At once: whatever fails or is cancelled from here on, the container can be found again.
        self._info = info
        self._ref = WorkspaceRef(provider=self.engine.provider, id=info.id)
        return info

    def _make(self, spec: ContainerSpec) -> tuple[ContainerInfo, bool]:
        blueprint = self._blueprint
        if blueprint.maker is not None:
            return blueprint.maker.make(spec, self._container_name)
        if spec.workspace is not None:
            spec = spec.model_copy(update={"uid": self.engine.prepare_workspace(spec.workspace)})
        return self.engine.create(spec, self._container_name, blueprint.labels)

    def _forget_closed_loops(self) -> None:
        for loop in [loop for loop in self._clients if loop.is_closed()]:
            _, connection = self._clients.pop(loop)
            connection.sock.close()

    # --- the end

    def detach(self) -> None:
        """Close the connections; the container goes on, and the next use connects again."""
        self._disconnect()

    async def aclose(self) -> None:
        """End it: remove the container if this object made it (stop it if it is persistent), else only let go."""
        self._let_go("this sandbox was closed")
        await self.submit(self._end)

    def stop(self) -> None:
        """The same as `aclose`, for callers that cannot await; blocks while the engine works."""
        self._let_go("this sandbox was stopped")
        self._end()

    def dismiss(self) -> None:
        """The same as `aclose`, for callers that do not wait for it."""
        self._let_go("this sandbox was dismissed")
        self.engine.submit(self._end)

    async def destroy(self) -> None:
        """Remove the container, whoever made it."""
        self._let_go("this sandbox was destroyed")
        await self.submit(self._destroy)

    def _end(self) -> None:
        # The lock waits for a creation that is under way, so that nothing is left behind.
        with self._lock:
            if self._info is None or not self._created:
                return
            if not self._info.spec.persistent:
                self.engine.remove(self._info.id)
                return
            self.engine.stop(self._info.id)
        # What is kept can be used again.
        self._ended = None

    def _destroy(self) -> None:
        with self._lock:
            if self._ref is not None:
                self.engine.remove(self._ref.id)

    def _let_go(self, reason: str) -> None:
        self._ended = reason
        self._disconnect()

    def _disconnect(self) -> None:
        clients, self._clients = self._clients, {}
        for loop, (client, connection) in clients.items():
            _close_channel(loop, client.channel, connection.sock)

    async def submit(self, call: Callable[[], T]) -> T:
        """Run blocking work in the engine's threads; it goes on when the caller is cancelled."""
        return await completed(self.engine.submit(call))


def filled_in(spec: ContainerSpec, runtime: RuntimeConfig | str, image: str) -> ContainerSpec:
    """A spec with the image that was found for a runtime, and what else the runtime brings."""
    if isinstance(runtime, str):
        return spec.model_copy(update={"image": image})
    env = {**runtime.env, **spec.env}
    return spec.model_copy(update={"image": image, "env": env, "workdir": runtime.workdir})


class _EndedMeanwhileError(Exception):
    """The container ended between being found and being reached; nothing was asked of it yet."""


class _Connecting:
    """The way to a runner, taken once for all who wait for it; given up when the last of them is cancelled."""

    def __init__(self, task: asyncio.Task[RunnerClient]) -> None:
        self.task = task
        self._waiting = 0

    async def wait(self) -> RunnerClient:
        self._waiting += 1
        try:
            # Shielded: a caller that is cancelled must not take the container away from the others.
            return await asyncio.shield(self.task)
        finally:
            self._waiting -= 1

    def give_up(self) -> bool:
        """Stop, unless others wait; returns whether it was stopped."""
        return self._waiting == 0 and self.task.cancel()


def _close_channel(loop: asyncio.AbstractEventLoop, channel: Channel, sock: socket.socket) -> None:
    """Close a channel from wherever we are: its own loop, another thread, or no loop at all."""
    if loop.is_closed():
        sock.close()
    elif loop.is_running():
        loop.call_soon_threadsafe(channel.close)
    else:
        channel.close()
        if _in_a_loop():
            # The loop is another, idle one, such as `run_sync` leaves behind in a thread; this one is not to notice.
            thread = threading.Thread(target=_turn, args=(loop,), name="sandbox-close")
            thread.start()
            thread.join()
        else:
            _turn(loop)


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    """One turn of an idle loop, for it to close a transport that was aborted."""
    turn = asyncio.sleep(0)
    try:
        loop.run_until_complete(turn)
    except RuntimeError:
        # It was closed or set running meanwhile: either closes the transport.
        turn.close()


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
