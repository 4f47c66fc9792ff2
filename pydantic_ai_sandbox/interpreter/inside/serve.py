"""Serves one Jupyter kernel on a unix socket, inside a sandbox: `python3 serve.py SOCKET`.

It returns as soon as it listens, or as soon as it finds that another one does: to bind the name is the lock. What serves
goes on in a session of its own, so that it is neither a command nor a job, and does not keep an unused sandbox alive.

A connection carries one request, a line of JSON, and its answers, lines of JSON of which the last one has no `event`:

    {"op": "execute", "code": …, "timeout": …}   {"event": "queued"}, {"event": "started"}, and how the cell ended
    {"op": "interrupt"}                          {"interrupted": whether a cell ran}
    {"op": "restart"}                            {"restarted": true}
    {"op": "status"}                             {"state": "idle" | "busy" | "starting" | "dead", "cells": …, "queued": …}
    {"op": "shutdown"}                           {}

Cells run one after the other in the order of their `queued`. Whoever hangs up before the end interrupts their cell, and
`{"failure": …}` is the answer when there is no kernel to ask. Nothing here needs more than Python 3.10, `ipykernel` and
what that brings along.
"""

from __future__ import annotations

import asyncio
import errno
import glob
import importlib.util
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress

MISSING = 3
"""Exit status for a Python without ipykernel."""

LARGEST_REQUEST = 4 * 1024 * 1024
MOST_KEPT = 128 * 1024
"""Characters kept of each kind of text, half of them from each end."""
MOST_TRACEBACK = 32 * 1024
MOST_MESSAGE = 4096
MOST_IMAGES = 8
LARGEST_IMAGE = 5_000_000
"""Characters of an image in base64; models' providers refuse larger ones."""
ALL_IMAGES = 12_000_000
"""Characters of all images of a cell together."""

START_WITHIN = 60.0
INTERRUPTS = 3
"""How often a cell is asked to stop, `INTERRUPT_EVERY` seconds apart, before its kernel is killed."""
INTERRUPT_EVERY = 1.0
LATE = 5.0
"""Seconds without output after a kernel's reply, after which no more is waited for."""
NO_REPLY = 1.0
"""Seconds after a cell's last output for its reply, which a cancelled `await` never gets."""
GLANCE = 0.05
"""Seconds between two looks whether the kernel still lives."""

IMAGES = ("image/png", "image/jpeg")

KERNEL_ARGUMENTS = (
    # No colours, no frames with five lines around each; nothing written to a history that nobody reads.
    "--InteractiveShell.colors=NoColor",
    "--InteractiveShell.xmode=Plain",
    "--HistoryManager.enabled=False",
)


class Ends:
    """The beginning and the end of text of any length."""

    def __init__(self, limit: int) -> None:
        self.half = limit // 2
        self.head = self.tail = ""
        self.omitted = 0

    def add(self, text: str) -> None:
        room = self.half - len(self.head)
        if room > 0:
            self.head += text[:room]
            text = text[room:]
        if text:
            self.tail += text
            excess = len(self.tail) - self.half
            if excess > 0:
                self.omitted += len(self.tail[:excess].encode("utf-8", "surrogatepass"))
                self.tail = self.tail[excess:]

    def told(self) -> dict:
        return {"head": self.head, "tail": self.tail, "omitted": self.omitted}


class Output:
    """What a cell produced, bounded while it comes."""

    def __init__(self) -> None:
        self.stdout, self.stderr, self.result = Ends(MOST_KEPT), Ends(MOST_KEPT), Ends(MOST_KEPT)
        self.images: list = []
        self.images_omitted = 0
        self.error = None
        self.taken = 0
        """How often something came."""

    def take(self, kind: str, content: dict) -> None:
        self.taken += 1
        if kind == "stream":
            (self.stderr if content["name"] == "stderr" else self.stdout).add(content["text"])
        elif kind == "execute_result":
            self.shown(content["data"], self.result)
        elif kind == "display_data":
            self.shown(content["data"], self.stdout)
        elif kind == "error":
            traceback = Ends(MOST_TRACEBACK)
            traceback.add("\n".join(content["traceback"]))
            self.error = {
                "name": content["ename"][:MOST_MESSAGE],
                "message": content["evalue"][:MOST_MESSAGE],
                "traceback": traceback.told(),
            }

    def shown(self, data: dict, text: Ends) -> None:
        """Something displayed: as an image if it has one, else as text, in order with what is printed."""
        media_type = next((each for each in IMAGES if isinstance(data.get(each), str)), None)
        if media_type is None:
            text.add(str(data.get("text/plain", "")).rstrip("\n") + "\n")
        elif self.has_room(len(data[media_type])):
            self.images.append({"type": media_type, "data": data[media_type]})
        else:
            self.images_omitted += 1

    def has_room(self, size: int) -> bool:
        held = sum(len(image["data"]) for image in self.images)
        return len(self.images) < MOST_IMAGES and size <= LARGEST_IMAGE and held + size <= ALL_IMAGES

    def told(self) -> dict:
        return {
            "stdout": self.stdout.told(),
            "stderr": self.stderr.told(),
            "result": self.result.told(),
            "images": self.images,
            "images_omitted": self.images_omitted,
            "error": self.error,
        }


class FailureError(Exception):
    """There is no kernel; the message says why."""


class Kernel:
    """A kernel's process, and the connection to it."""

    def __init__(self, directory: str) -> None:
        self.oom_kills = oom_kills()
        self.cells = 0
        self.listeners: dict = {}
        path = os.path.join(directory, "connection-" + secrets.token_hex(4))
        ports = ("shell_port", "iopub_port", "stdin_port", "control_port", "hb_port")
        self.connection = {
            **{port: number for number, port in enumerate(ports, 1)},
            "transport": "ipc",
            "ip": path,
            "key": secrets.token_hex(16),
            "signature_scheme": "hmac-sha256",
            "kernel_name": "python3",
        }
        self.file = path + ".json"
        with open(self.file, "w") as file:
            json.dump(self.connection, file)
        self.complaints = path + ".log"
        with open(self.complaints, "wb") as complaints:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ipykernel_launcher", "-f", self.file, *KERNEL_ARGUMENTS],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,  # until the kernel is up; then all that is printed is published
                start_new_session=True,  # a signal to its group reaches what a cell started, and not us
                env={
                    **os.environ,
                    "JPY_PARENT_PID": str(os.getpid()),  # it ends when we do
                    "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # open figures are displayed after a cell
                },
            )
        self.dead = asyncio.create_task(self.watch())

    async def connect(self) -> None:
        """Wait until it answers.

        Raises:
            FailureError: It does not.
        """
        # Here, while the kernel's own process does the same.
        from jupyter_client.asynchronous import AsyncKernelClient

        self.client = client = AsyncKernelClient()
        client.load_connection_info(self.connection)
        client.start_channels(stdin=False, hb=False, control=False)
        self.pump = asyncio.create_task(self.receive())
        ready = asyncio.create_task(self.greet())
        await asyncio.wait({ready, self.dead}, timeout=START_WITHIN, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            ready.cancel()
            why = "ended at once" if self.dead.done() else f"did not answer within {START_WITHIN:g} s"
            said = self.last_complaint()
            self.close()
            raise FailureError(f"the kernel {why}: {said}")

    def last_complaint(self) -> str:
        with open(self.complaints, "rb") as file:
            return file.read()[-MOST_MESSAGE:].decode("utf-8", "replace")

    async def greet(self) -> None:
        """Ask until it answers, and until what it publishes reaches us too."""
        published = asyncio.Event()
        while not published.is_set():
            request = self.client.kernel_info()
            self.listeners[request] = lambda kind, content: published.set()
            with suppress(Exception):
                await self.reply(request, 1.0)
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(published.wait(), 0.2)
            del self.listeners[request]

    async def receive(self) -> None:
        """Read what it publishes, always: otherwise it would drop what nobody has taken."""
        while True:
            # A cell can publish whatever it likes, and is the only one to miss what makes no sense.
            with suppress(AttributeError, KeyError, TypeError, ValueError):
                message = await self.client.get_iopub_msg()
                listener = self.listeners.get(message["parent_header"].get("msg_id"))
                if listener is not None:
                    listener(message["header"]["msg_type"], message["content"])

    async def reply(self, request: str, timeout: float | None = None) -> dict:
        while True:
            message = await self.client.get_shell_msg(timeout=timeout)
            if message["parent_header"].get("msg_id") == request:
                return message["content"]

    async def execute(self, code: str, output: Output) -> dict:
        """Run a cell to its end; what it publishes meanwhile goes to `output`."""
        idle = asyncio.Event()

        def take(kind: str, content: dict) -> None:
            if kind == "status":
                if content["execution_state"] == "idle":
                    idle.set()
            else:
                output.take(kind, content)

        self.cells += 1
        request = self.client.execute(code, allow_stdin=False, stop_on_error=False)
        self.listeners[request] = take
        replied, rested = asyncio.ensure_future(self.reply(request)), asyncio.ensure_future(idle.wait())
        try:
            await asyncio.wait({replied, rested}, return_when=asyncio.FIRST_COMPLETED)
            if rested.done():
                await asyncio.wait({replied}, timeout=NO_REPLY)
            # Much output may still be on its way.
            before = -1
            while not rested.done() and before < output.taken:
                before = output.taken
                await asyncio.wait({rested}, timeout=LATE)
            return replied.result() if replied.done() else {"status": "error" if output.error else "ok"}
        finally:
            replied.cancel()
            rested.cancel()
            del self.listeners[request]

    async def watch(self) -> dict:
        """How it ended, when it has."""
        while self.process.poll() is None:  # noqa: ASYNC110 — a process is no event
            await asyncio.sleep(GLANCE)
        # What it published before it died is still on the way.
        await asyncio.sleep(2 * GLANCE)
        return self.death()

    def death(self) -> dict:
        code = self.process.returncode
        return {
            "signal": signal_name(-code) if code < 0 else None,
            "exit_code": code if code >= 0 else 128 - code,
            "out_of_memory": code == -signal.SIGKILL and oom_kills() > self.oom_kills,
            "memory_limit": counter("memory.max", "memory.limit_in_bytes"),
        }

    def interrupt(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGINT)
        # A kernel that awaits something notes the signal, but acts on it only when something comes.
        self.client.kernel_info()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        self.kill()
        self.process.wait()
        self.dead.cancel()
        self.pump.cancel()
        self.client.stop_channels()
        for path in glob.glob(self.connection["ip"] + "*"):
            os.remove(path)


def signal_name(number: int) -> str:
    """`SIGSEGV`; real-time signals have no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def oom_kills() -> int:
    """How often the system has killed something in this container for memory."""
    return counter("memory.events", "memory.oom_control", "oom_kill ")


def counter(name: str, old_name: str, key: str = "") -> int:
    """A number that the container's control group knows, by its name in version 2 or in version 1; 0 if there is none."""
    for path in ("/sys/fs/cgroup/" + name, "/sys/fs/cgroup/memory/" + old_name):
        with suppress(OSError, ValueError), open(path) as file:
            for line in file:
                if line.startswith(key):
                    return int(line[len(key) :])
    return 0


class Cell:
    """A cell that waits for its turn or runs."""

    def __init__(self, code: str, timeout: float) -> None:
        self.code = code
        self.timeout = timeout
        self.reason: str | None = None
        self.stopped, self.over = asyncio.Event(), asyncio.Event()

    def stop(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.stopped.set()


class Server:
    """Answers requests about one kernel, which it starts again whenever there is none."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.server: asyncio.AbstractServer
        self.kernel: Kernel | None = None
        self.lost: dict | None = None
        """How a kernel ended of which nobody has been told yet."""
        self.turn = asyncio.Lock()
        self.running: Cell | None = None
        self.queued = 0
        self.ended = asyncio.Event()
        self.tasks: set = set()

    async def serve(self, listener: socket.socket) -> None:
        self.warm()
        async with await asyncio.start_unix_server(self.meet, sock=listener, limit=LARGEST_REQUEST) as self.server:
            await self.ended.wait()
        self.drop()

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(answer: dict) -> None:
            writer.write(json.dumps(answer, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n")

        try:
            say(await self.answer(json.loads(await reader.readline()), reader, say))
        except FailureError as error:
            say({"failure": str(error)})
        except Exception as error:  # noqa: BLE001 — whatever it was, nobody else would tell who waits
            say({"failure": repr(error)})
        with suppress(OSError):
            await writer.drain()
            writer.close()

    async def answer(self, request: dict, reader: asyncio.StreamReader, say: Callable[[dict], None]) -> dict:
        operation = request["op"]
        if operation == "execute":
            cell = Cell(str(request["code"]), float(request["timeout"]))
            hung_up = self.begin(reader.read(1))
            hung_up.add_done_callback(lambda _: cell.stop("cancelled"))
            try:
                return await self.execute(cell, say)
            finally:
                hung_up.cancel()
        if operation == "interrupt":
            if self.running is not None:
                self.running.stop("interrupt")
            return {"interrupted": self.running is not None}
        if operation == "restart":
            await self.restart()
            return {"restarted": True}
        if operation == "status":
            return {"state": self.state(), "cells": self.kernel.cells if self.kernel else 0, "queued": self.queued}
        if operation == "shutdown":
            # Before the answer: whoever comes after it finds nobody here, and starts another.
            self.server.close()
            self.ended.set()
            return {}
        raise ValueError(operation)

    def begin(self, coroutine: Coroutine) -> asyncio.Task:
        task = asyncio.ensure_future(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def state(self) -> str:
        if self.running is not None:
            return "busy"
        if self.turn.locked():
            return "starting"
        return "idle" if self.kernel is not None and not self.kernel.dead.done() else "dead"

    async def execute(self, cell: Cell, say: Callable[[dict], None]) -> dict:
        self.queued += 1
        say({"event": "queued"})
        async with self.turn:
            self.queued -= 1
            if cell.stopped.is_set():
                return {"failure": "nobody waits for it any more"}
            kernel = await self.ready()
            say({"event": "started"})
            self.running = cell
            try:
                return await self.run(cell, kernel)
            finally:
                self.running = None
                cell.over.set()

    async def run(self, cell: Cell, kernel: Kernel) -> dict:
        lost, self.lost = self.lost, None
        output, began = Output(), time.monotonic()
        work, stopped = self.begin(kernel.execute(cell.code, output)), self.begin(cell.stopped.wait())
        await asyncio.wait({work, kernel.dead, stopped}, timeout=cell.timeout, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        reason = None
        if not work.done() and not kernel.dead.done():
            cell.stop("timeout")
            reason = cell.reason
            await self.stop(reason, kernel, work)
        answer = {**output.told(), "duration": time.monotonic() - began, "cells": kernel.cells, "lost": lost}
        answer.update(stopped=reason, death=None)
        if work.done():
            reply = work.result()
            ended = "ok" if reply["status"] == "ok" else "error"
            answer["cells"] = reply.get("execution_count", kernel.cells)
            return {**answer, "status": "interrupted" if reason else ended}
        work.cancel()
        self.drop()
        self.warm()
        if reason:
            return {**answer, "status": "killed"}
        return {**answer, "status": "died", "death": kernel.dead.result()}

    async def stop(self, reason: str | None, kernel: Kernel, work: asyncio.Task) -> None:
        """Have a cell end, and its kernel too if it takes that."""
        for _ in range(0 if reason == "restart" else INTERRUPTS):
            kernel.interrupt()
            await asyncio.wait({work, kernel.dead}, timeout=INTERRUPT_EVERY, return_when=asyncio.FIRST_COMPLETED)
            if work.done() or kernel.dead.done():
                return
        kernel.kill()
        await asyncio.wait({kernel.dead})

    async def ready(self) -> Kernel:
        """The kernel, alive as far as we know.

        Raises:
            FailureError: There is none, and none can be started.
        """
        if self.kernel is not None and self.kernel.dead.done():
            self.lost = self.kernel.dead.result()
            self.drop()
        if self.kernel is None:
            try:
                kernel = Kernel(self.directory)
            except OSError as error:
                raise FailureError(f"the kernel cannot be started: {error}") from error
            await kernel.connect()
            self.kernel = kernel
        return self.kernel

    def warm(self) -> None:
        """Start a kernel before somebody asks for it."""

        async def start() -> None:
            async with self.turn:
                with suppress(FailureError):
                    await self.ready()

        self.begin(start())

    def drop(self) -> None:
        kernel, self.kernel = self.kernel, None
        if kernel is not None:
            kernel.close()

    async def restart(self) -> None:
        if self.running is not None:
            cell = self.running
            cell.stop("restart")
            await cell.over.wait()
        else:
            async with self.turn:
                self.drop()
                await self.ready()
        self.lost = None


def listening(name: str) -> socket.socket | None:
    """A socket under that name, which vanishes with whoever has it; `None` if somebody has."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(name.replace("@", "\0", 1))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return None
        raise
    listener.listen(128)
    return listener


def detach() -> None:
    """Go on in a process that nobody waits for."""
    if os.fork():
        os._exit(0)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)


def main(name: str) -> int:
    """Serve under that name, unless somebody does; the exit status."""
    for module in ("ipykernel", "jupyter_client"):
        if importlib.util.find_spec(module) is None:
            print(f"{sys.executable} has no {module}", file=sys.stderr)
            return MISSING
    listener = listening(name)
    if listener is not None:
        detach()
        with tempfile.TemporaryDirectory(prefix="pydantic-ai-interpreter-") as directory:
            asyncio.run(Server(directory).serve(listener))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
