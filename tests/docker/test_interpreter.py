"""A Python that remembers, in a real sandbox: its state, its limits, its ends, and who may find it again."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from pydantic_ai.workspaces import WorkspaceUnavailableError

from pydantic_ai_sandbox import (
    CellResult,
    DockerSandbox,
    Interpreter,
    InterpreterError,
    InterpreterMissingError,
    SessionManager,
)
from tests.docker.conftest import IDLE

pytestmark = pytest.mark.docker


@pytest.fixture
async def python(make_python: Callable[..., DockerSandbox]) -> AsyncGenerator[DockerSandbox]:
    """A fresh sandbox that an interpreter can live in."""
    sandbox = make_python()
    yield sandbox
    await sandbox.aclose()


@pytest.fixture
def interpreter(python: DockerSandbox) -> Interpreter:
    return Interpreter(python)


async def value(interpreter: Interpreter, code: str, **options: Any) -> str:
    """The value of the last expression of a cell that went well."""
    result = await interpreter.run(code, **options)
    assert result.status == "ok", result
    return result.result.head.rstrip("\n")


# --- state


async def test_variables_survive_fifty_calls(interpreter: Interpreter) -> None:
    first = await interpreter.run("total = 0")
    assert (first.status, first.is_first, first.execution_count) == ("ok", True, 1)
    for number in range(50):
        result = await interpreter.run(f"total += {number}")
        assert (result.status, result.is_first, result.state_kept) == ("ok", False, True)
    assert await value(interpreter, "total") == str(sum(range(50)))


async def test_ten_users_at_once_each_have_their_own(make_python: Callable[..., DockerSandbox]) -> None:
    interpreters = [Interpreter(make_python()) for _ in range(10)]
    await asyncio.gather(*(each.run(f"mine = {number}") for number, each in enumerate(interpreters)))
    for _ in range(3):
        await asyncio.gather(*(each.run("mine += 100") for each in interpreters))
    values = await asyncio.gather(*(value(each, "mine") for each in interpreters))
    assert values == [str(number + 300) for number in range(10)]


async def test_interpreters_of_one_sandbox_are_told_apart_by_name(python: DockerSandbox) -> None:
    one, other, same = Interpreter(python), Interpreter(python, name="other"), Interpreter(python, name="other")
    await asyncio.gather(one.run("x = 'one'"), other.run("x = 'other'"))
    assert [await value(each, "x") for each in (one, other, same)] == ["'one'", "'other'", "'other'"]
    await other.shutdown()
    assert (await other.status()).state == "absent"
    assert await value(one, "x") == "'one'"


async def test_cells_run_in_the_order_in_which_they_were_given(interpreter: Interpreter) -> None:
    cells = ["digits = ''", *(f"import time; time.sleep(0.01); digits += '{n}'" for n in range(10)), "digits"]
    results = await asyncio.gather(*(interpreter.run(cell) for cell in cells))
    assert results[-1].result.head == "'0123456789'\n"
    assert [result.execution_count for result in results] == list(range(1, 13))


async def test_tasks_that_come_first_at_once_start_one_kernel(python: DockerSandbox) -> None:
    interpreters = [Interpreter(python) for _ in range(20)]
    pids = await asyncio.gather(*(value(each, "import os; os.getpid()") for each in interpreters))
    assert len(set(pids)) == 1
    counts = await asyncio.gather(*(each.run("1") for each in interpreters))
    assert sorted(result.execution_count for result in counts) == list(range(21, 41))


ELSEWHERE = """
import asyncio, json, sys
from pydantic_ai.messages import WorkspaceRef
from pydantic_ai_sandbox import DockerSandbox, Interpreter
async def main(provider, id):
    interpreter = Interpreter(DockerSandbox(ref=WorkspaceRef(provider=provider, id=id)))
    result = await interpreter.run("found = True; x")
    print(json.dumps([result.result.head, result.execution_count]))
asyncio.run(main(*sys.argv[1:]))
"""


async def test_another_process_finds_the_kernel_with_its_state(python: DockerSandbox) -> None:
    await Interpreter(python).run("x = 'kept'")
    assert python.ref is not None
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ELSEWHERE, python.ref.provider, python.ref.id, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert json.loads(out) == ["'kept'\n", 2]
    assert await value(Interpreter(python), "found") == "True"


async def test_a_session_that_was_replaced_has_a_new_interpreter(managers: Callable[..., SessionManager]) -> None:
    manager = managers(default_runtime="python-datascience")
    sandbox = await manager.get_or_create("alice")
    interpreter = Interpreter(sandbox)
    await interpreter.run("x = 1")
    await manager.stop("alice")
    result = await interpreter.run("x")
    assert (result.status, result.is_first) == ("error", True)
    assert result.error is not None
    assert result.error.name == "NameError"


# --- what a cell gives


async def test_output_values_and_errors_are_told_apart(interpreter: Interpreter) -> None:
    result = await interpreter.run("import sys\nprint('out')\nprint('err', file=sys.stderr)\n6 * 7")
    assert (result.stdout.head, result.stderr.head, result.result.head) == ("out\n", "err\n", "42\n")
    failed = await interpreter.run("print('before')\ndef f():\n    return 1 / 0\nf()")
    assert (failed.status, failed.stdout.head) == ("error", "before\n")
    assert failed.error is not None
    assert (failed.error.name, failed.error.message) == ("ZeroDivisionError", "division by zero")
    assert "return 1 / 0" in failed.error.traceback.head
    assert "\x1b" not in failed.error.traceback.head
    wrong = await interpreter.run("def f(:")
    assert wrong.error is not None
    assert wrong.error.name == "SyntaxError"


async def test_a_table_comes_as_text(interpreter: Interpreter) -> None:
    table = await value(interpreter, "import pandas; pandas.DataFrame({'name': ['a', 'b'], 'size': [1, 2]})")
    assert table == "  name  size\n0    a     1\n1    b     2"


async def test_open_figures_come_as_images_without_being_asked_for(interpreter: Interpreter) -> None:
    result = await interpreter.run(
        "import matplotlib.pyplot as plt\nfor n in (1, 2):\n    plt.figure(); plt.plot([n, 3])\nprint('drawn')"
    )
    assert [image.media_type for image in result.images] == ["image/png", "image/png"]
    assert all(1_000 < len(image.data) < 200_000 for image in result.images)
    assert result.stdout.head == "drawn\n"
    assert not (await interpreter.run("1")).images


async def test_too_many_images_and_those_that_are_none_are_counted(interpreter: Interpreter) -> None:
    result = await interpreter.run(
        "from IPython.display import Image\n"
        "import matplotlib.pyplot as plt\n"
        "display(Image(data=b'\\x89PNG\\r\\n\\x1a\\n' + bytes(100)))\n"
        "for n in range(10): plt.figure(figsize=(1, 1)); plt.plot([n])"
    )
    assert (len(result.images), result.images_omitted) == (7, 4)


async def test_input_is_an_error_and_does_not_wait(interpreter: Interpreter) -> None:
    result = await interpreter.run("input()", timeout=60)
    assert result.status == "error"
    assert result.error is not None
    assert result.error.name == "StdinNotImplementedError"


async def test_await_and_magics_work(interpreter: Interpreter) -> None:
    assert await value(interpreter, "import asyncio\nawait asyncio.sleep(0.01, 'awaited')") == "'awaited'"
    assert (await interpreter.run("!echo shell; pwd")).stdout.head.split() == ["shell", "/workspace"]


async def test_what_is_not_text_or_makes_no_sense_harms_nothing(interpreter: Interpreter) -> None:
    for code in (
        "print('\\udc80 \\x1b[31m \\x00')",
        "display({'text/plain': 5}, raw=True)",
        "display({'image/png': [1, 2]}, raw=True)",
        "display({'image/png': 'no base64'}, raw=True)",
        "from IPython import get_ipython\nget_ipython().kernel.iopub_socket.send(b'garbage')",
    ):
        assert (await interpreter.run(code, timeout=30)).status in {"ok", "error"}
    assert await value(interpreter, "1 + 1") == "2"


# --- limits


async def test_an_endless_loop_is_interrupted_and_keeps_its_state(interpreter: Interpreter) -> None:
    await interpreter.run("x = 'kept'")
    for code in ("while True: pass", "import time; time.sleep(600)", "import asyncio; await asyncio.sleep(600)"):
        result = await interpreter.run(code, timeout=0.5)
        assert (result.status, result.stopped, result.state_kept) == ("interrupted", "timeout", True), code
    assert await value(interpreter, "x") == "'kept'"


@pytest.mark.parametrize(
    "stubborn",
    [
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
        "sum(range(10**15))",
        "while True:\n    try:\n        time.sleep(600)\n    except BaseException:\n        pass",
    ],
    ids=["ignores the signal", "is busy in C", "swallows the interrupt"],
)
async def test_what_does_not_react_is_killed_and_its_state_is_lost(interpreter: Interpreter, stubborn: str) -> None:
    await interpreter.run("import time; x = 1")
    result = await interpreter.run(f"print('said'); time.sleep(0.5)\n{stubborn}", timeout=1.5)
    assert (result.status, result.stopped, result.state_kept) == ("interrupted", "timeout", False)
    assert result.stdout.head == "said\n"
    after = await interpreter.run("x")
    assert (after.status, after.is_first) == ("error", True)


async def test_a_segmentation_fault_is_told_by_its_signal(interpreter: Interpreter) -> None:
    await interpreter.run("x = 1")
    result = await interpreter.run("import ctypes; ctypes.string_at(0)")
    assert (result.status, result.state_kept, result.execution_count) == ("died", False, 2)
    assert result.death is not None
    assert (result.death.signal, result.death.exit_code, result.death.out_of_memory) == ("SIGSEGV", 139, False)
    assert (await interpreter.run("1 + 1")).is_first


async def test_running_out_of_memory_is_told(interpreter: Interpreter, python: DockerSandbox) -> None:
    await interpreter.run("x = 1")
    result = await interpreter.run("hog = [bytearray(64 * 1024 * 1024) for _ in range(64)]")
    assert (result.status, result.state_kept) == ("died", False)
    assert result.death is not None
    assert (result.death.signal, result.death.out_of_memory) == ("SIGKILL", True)
    assert result.death.memory_limit == 1024**3
    assert (await python.usage()).oom_kills > 0
    assert await value(interpreter, "1 + 1") == "2"


async def test_python_that_exits_and_python_that_is_killed_while_idle_are_told(interpreter: Interpreter) -> None:
    result = await interpreter.run("import os; os._exit(3)")
    assert result.death is not None
    assert (result.death.exit_code, result.death.signal) == (3, None)
    await interpreter.run("import threading, os; threading.Timer(0.2, os.abort).start()")
    await asyncio.sleep(1)
    after = await interpreter.run("1 + 1")
    assert (after.status, after.state_kept, after.is_first) == ("ok", False, True)
    assert after.lost is not None
    assert after.lost.signal == "SIGABRT"


FLOODED = """
import asyncio, json, resource
from pydantic_ai_sandbox import DockerSandbox, Interpreter

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

async def main():
    async with DockerSandbox("python-datascience", idle_timeout=90) as sandbox:
        interpreter = Interpreter(sandbox)
        await interpreter.run("line = 'x' * 99 + chr(10)")
        before = peak()
        result = await interpreter.run("for _ in range(10): print(line * 100_000, end='')")
        kept = len(result.stdout.head) + len(result.stdout.tail)
        print(json.dumps([result.status, kept, result.stdout.omitted, peak() - before]))

asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_hundred_megabytes_of_output_do_not_raise_the_backends_memory() -> None:
    # In a process of its own: the peak of this one may be high already, and would hide any growth below it.
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", FLOODED, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    status, kept, omitted, grown = json.loads(out)
    assert status == "ok"
    assert kept + omitted == 100_000_000
    assert kept < 1024 * 1024
    assert grown < 16 * 1024 * 1024


# --- being stopped


async def test_whoever_comes_right_after_a_shutdown_gets_a_new_kernel(interpreter: Interpreter) -> None:
    for _ in range(4):
        await interpreter.run("x = 1")
        await interpreter.shutdown()
        after = await interpreter.run("'x' in globals()")
        assert (after.result.head.strip(), after.is_first) == ("False", True)
        await interpreter.shutdown()


async def test_a_cell_can_be_interrupted_from_elsewhere(interpreter: Interpreter, python: DockerSandbox) -> None:
    await interpreter.run("x = 'kept'")
    assert not await interpreter.interrupt()
    running = asyncio.create_task(interpreter.run("print('on it')\nimport time; time.sleep(600)"))
    elsewhere = Interpreter(python)
    while (await elsewhere.status()).state != "busy":
        await asyncio.sleep(0.02)
    assert await elsewhere.interrupt()
    result = await running
    assert (result.status, result.stopped, result.state_kept) == ("interrupted", "interrupt", True)
    assert await value(interpreter, "x") == "'kept'"


async def test_cancelling_a_call_interrupts_its_cell_and_only_that(interpreter: Interpreter) -> None:
    await interpreter.run("x = 'kept'")
    running = asyncio.create_task(interpreter.run("import time; time.sleep(600)"))
    while (await interpreter.status()).state != "busy":
        await asyncio.sleep(0.02)
    waiting = asyncio.create_task(interpreter.run("never = True"))
    while not (await interpreter.status()).queued:
        await asyncio.sleep(0.02)
    for task in (waiting, running):
        task.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    assert await value(interpreter, "x, 'never' in globals()", timeout=60) == "('kept', False)"


async def test_a_restart_ends_what_runs_and_forgets(interpreter: Interpreter) -> None:
    await interpreter.run("x = 1")
    running = asyncio.create_task(interpreter.run("import time; time.sleep(600)"))
    while (await interpreter.status()).state != "busy":
        await asyncio.sleep(0.02)
    await interpreter.restart()
    result = await running
    assert (result.status, result.stopped, result.state_kept) == ("interrupted", "restart", False)
    after = await interpreter.run("'x' in globals()")
    assert (after.result.head, after.is_first, after.state_kept) == ("False\n", True, True)


async def test_asking_for_the_status_starts_nothing(interpreter: Interpreter) -> None:
    assert (await interpreter.status()).state == "absent"
    assert not await interpreter.interrupt()
    await interpreter.shutdown()
    assert (await interpreter.status()).state == "absent"
    await interpreter.run("1")
    status = await interpreter.status()
    assert (status.state, status.cells, status.queued) == ("idle", 1, 0)


async def test_what_cannot_be_is_refused_before_anything_starts(
    interpreter: Interpreter, python: DockerSandbox
) -> None:
    for timeout in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            await interpreter.run("1", timeout=timeout)
    with pytest.raises(ValueError, match="characters"):
        await interpreter.run("x" * 2_000_000)
    for name in ("", "a/b", "ü", "x" * 49):
        with pytest.raises(ValueError, match="name"):
            Interpreter(python, name=name)
    with pytest.raises(TypeError):
        Interpreter(object())  # pyright: ignore[reportArgumentType]
    assert (await interpreter.status()).state == "absent"


# --- life


async def test_an_idle_kernel_does_not_keep_its_sandbox_alive_but_a_running_cell_does(
    make_python: Callable[..., DockerSandbox],
) -> None:
    sandbox = make_python(idle_timeout=3)
    interpreter = Interpreter(sandbox)
    assert await value(interpreter, "import time; time.sleep(8); 'through'") == "'through'"
    # What comes now is no use of it, and the kernel lives on beside.
    begun = time.monotonic()
    with pytest.raises(WorkspaceUnavailableError):
        while time.monotonic() - begun < IDLE:
            await sandbox.usage()
            await asyncio.sleep(0.2)


async def test_a_sandbox_that_goes_takes_the_cell_with_it(interpreter: Interpreter, python: DockerSandbox) -> None:
    running = asyncio.create_task(interpreter.run("import time; time.sleep(600)"))
    while (await interpreter.status()).state != "busy":
        await asyncio.sleep(0.02)
    await python.destroy()
    with pytest.raises(WorkspaceUnavailableError):
        await running


async def test_killing_everything_ends_the_kernel_and_the_next_cell_starts_one(
    interpreter: Interpreter, python: DockerSandbox
) -> None:
    running = asyncio.create_task(interpreter.run("import time; time.sleep(600)"))
    while (await interpreter.status()).state != "busy":
        await asyncio.sleep(0.02)
    await python.kill_all()
    with pytest.raises(InterpreterError, match="ended without an answer"):
        await running
    assert (await interpreter.run("1")).is_first


async def test_nothing_is_left_of_a_kernel_that_was_shut_down(interpreter: Interpreter, python: DockerSandbox) -> None:
    await python.run(["true"])
    quiet = (await python.usage()).pids
    await interpreter.run("import subprocess; child = subprocess.Popen(['sleep', '600'])")
    await interpreter.shutdown()
    for _ in range(200):
        if (await python.usage()).pids <= quiet + 2:
            break
        await asyncio.sleep(0.05)
    else:
        pytest.fail("processes are left")
    assert not (await python.glob("/tmp/pydantic-ai-interpreter-*", "/tmp", hidden=True)).matches


@pytest.mark.parametrize("options", [{}, {"image": "busybox"}], ids=["no ipykernel", "no Python"])
async def test_a_sandbox_without_ipykernel_says_what_to_use(
    make_sandbox: Callable[..., DockerSandbox], busybox: str, options: dict[str, str]
) -> None:
    sandbox = make_sandbox(**({"image": busybox} if options else {}))
    with pytest.raises(InterpreterMissingError, match="python-datascience"):
        await Interpreter(sandbox).run("1")


async def test_a_kernel_that_cannot_start_says_why(make_python: Callable[..., DockerSandbox]) -> None:
    sandbox = make_python(env={"PYTHONPATH": "/workspace/broken"})
    await sandbox.write_text("/workspace/broken/ipykernel_launcher.py", "raise SystemExit('broken on purpose')")
    with pytest.raises(InterpreterError, match="broken on purpose"):
        await Interpreter(sandbox).run("1")
    await sandbox.remove("/workspace/broken/ipykernel_launcher.py")
    assert (await Interpreter(sandbox).run("1")).status == "ok"


# --- who only pretends to be an interpreter

PRETENDER = """
import json, socket, sys, time
server = socket.socket(socket.AF_UNIX)
server.bind("\\0pydantic-ai-sandbox-interpreter-1-default")
server.listen()
print("listening", flush=True)
def event(name): return json.dumps({"event": name}).encode() + b"\\n"
while True:
    peer, _ = server.accept()
    try:
        what = sys.argv[1]
        if what == "garbage": peer.sendall(b"\\xff\\x00 not json\\n")
        elif what == "a list": peer.sendall(b"[]\\n")
        elif what == "deep": peer.sendall(b"[" * 1_000_000 + b"\\n")
        elif what == "hangs up": pass
        elif what == "half a line": peer.sendall(b'{"event"')
        elif what == "another event": peer.sendall(event("started"))
        elif what == "a giant line":
            while True: peer.sendall(bytes(65536))
        elif what == "says nothing": time.sleep(600)
        elif what == "nothing in it": peer.sendall(event("queued") + event("started") + b"{}\\n")
        elif what == "a giant answer":
            peer.sendall(event("queued") + event("started") + b'{"status": "')
            while True: peer.sendall(b"x" * 65536)
        elif what == "a failure": peer.sendall(json.dumps({"failure": "f" * 1_000_000}).encode() + b"\\n")
    except OSError:
        pass
    peer.close()
"""


@pytest.mark.parametrize(
    "what",
    [
        "garbage",
        "a list",
        "deep",
        "hangs up",
        "half a line",
        "another event",
        "a giant line",
        "says nothing",
        "nothing in it",
        "a giant answer",
        "a failure",
    ],
)
async def test_whoever_only_pretends_is_a_bounded_typed_error(
    sandbox: DockerSandbox, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("pydantic_ai_sandbox.interpreter.interpreter._ANSWER_WITHIN", 3.0)
    await sandbox.write_text("/tmp/pretender.py", PRETENDER)
    job = await sandbox.start_job(["python3", "/tmp/pretender.py", what])
    assert b"listening" in (await job.output(wait=30)).data
    with pytest.raises(InterpreterError) as caught:
        await Interpreter(sandbox).run("1", timeout=1)
    assert len(str(caught.value)) < 3_000
    assert (await sandbox.run(["echo", "fine"])).stdout == "fine\n"


def test_a_result_of_a_cell_has_a_readable_default() -> None:
    result = CellResult(status="ok", execution_count=1, duration=0.0)
    assert (result.stdout.head, result.state_kept, result.is_first) == ("", True, True)
