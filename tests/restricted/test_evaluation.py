"""What code answers, and that every limit holds."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic_monty import MontyError

from pydantic_ai_sandbox.errors import ResourceExhaustedError, SandboxError
from pydantic_ai_sandbox.restricted import evaluate, evaluation
from tests.restricted.heartbeat import heartbeat


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("1 + 1", "2"),
        ("'a' * 3", "'aaa'"),
        ("x = 3\nx * 2", "6"),
        ("x = 3\r\nx * 2\r\n", "6"),
        ("def f(n):\n    return n * n\n\nf(12)\n\n# done", "144"),
        ("sum(\n    n\n    for n in range(10)\n)", "45"),
        ("{\n    'a': 1,\n    'b': [1, 2],\n}", "{'a': 1, 'b': [1, 2]}"),
        ("from decimal import Decimal\nDecimal('0.1') + Decimal('0.2')", "Decimal('0.3')"),
        ("import math\nround(math.pi, 4)", "3.1416"),
        ("f'{1_000_000:,}'", "'1,000,000'"),
        ('text = """\n1\n"""\nlen(text)', "3"),
        ("1, 2", "(1, 2)"),
        ("(n := 5) + 1", "6"),
        ("None", None),
        ("x = 5", None),
        ("for i in range(3):\n    i", None),
        ("if True:\n    1\nelse:\n    2", None),
        ("x = [\n1,\n2\n]", None),
        ('x = """\n1"""', None),
        ("x = 1 \\\n+ 2", None),
        ("1;", None),
        ("", None),
        ("# nothing", None),
    ],
)
async def test_the_value_of_an_expression_that_begins_the_last_line_is_shown(code: str, value: str | None) -> None:
    result = await evaluate(code)
    assert result.error is None
    assert result.value == value


async def test_what_code_prints_comes_before_its_value() -> None:
    result = await evaluate("print('a', 1)\nprint('b')\n7")
    assert (result.printed, result.value, result.error) == ("a 1\nb\n", "7", None)


async def test_inputs_are_variables_of_the_code() -> None:
    day = dt.date(2026, 1, 31)
    result = await evaluate("[sum(prices), name, day.month]", inputs={"prices": [1.5, 2], "name": "x", "day": day})
    assert result.value == "[3.5, 'x', 1]"


async def test_an_input_that_cannot_be_passed_is_the_callers_mistake() -> None:
    with pytest.raises(TypeError):
        await evaluate("x", inputs={"x": object()})


async def test_nothing_is_kept_between_two_evaluations() -> None:
    await evaluate("x = 1")
    assert (await evaluate("x")).error == "NameError: name 'x' is not defined (line 1: x)"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("x = 0\n1 / x", "ZeroDivisionError: division by zero (line 2: 1 / x)"),
        ("def f():\n    return [][1]\n\nf()", "IndexError: list index out of range (line 2: return [][1])"),
        ("x = 1\nfoo(x)\n", "NameError: name 'foo' is not defined (line 2: foo(x))"),
        ("x = 1\ny = foo(1,", "SyntaxError: Expected `)`, found newline (line 2: y = foo(1,)"),
        ("x = 1\n\n\ny = [\n1,\nx / 0]\ny", "ZeroDivisionError: division by zero (line 6: x / 0])"),
        ("\n\n1 / 0\n", "ZeroDivisionError: division by zero (line 3: 1 / 0)"),
        ("x = 2\nexec('\\n\\n\\n1 / 0')", "ZeroDivisionError: division by zero (line 2: exec('\\n\\n\\n1 / 0'))"),
        ("raise ValueError('mine')", "ValueError: mine (line 1: raise ValueError('mine'))"),
    ],
)
async def test_an_exception_is_told_with_its_line(code: str, error: str) -> None:
    assert (await evaluate(code)).error == error


async def test_what_was_printed_before_an_exception_is_kept() -> None:
    result = await evaluate("print('so far')\n1 / 0")
    assert result.printed == "so far\n"
    assert result.value is None


REFUSED = {
    "walking from an object to its class": "().__class__.__mro__[1].__subclasses__()",
    "walking by format string": "'{0.__class__.__init__.__globals__}'.format(())",
    "walking by format string to a function's globals": "'{0.__globals__}'.format(lambda: 0)",
    "walking in an f-string": "f'{().__class__.__base__}'",
    "walking by getattr": "getattr((), '__cl' + 'ass__')",
    "the frame of a generator": "g = (x for x in [1])\ng.gi_frame.f_back.f_globals",
    "the frame of a traceback": "try:\n    1 / 0\nexcept Exception as e:\n    x = e\nx.__traceback__.tb_frame",
    "the globals of a function": "def f(): pass\nf.__globals__",
    "the code of a function": "def f(): pass\nf.__code__",
    "the builtins": "__builtins__['open']",
    "importing by name": "__import__('os').system('id')",
    "loaded modules": "import sys\nsys.modules",
    "compiling": "compile('1', 'x', 'eval')",
    "processes": "import subprocess",
    "a shell": "import os\nos.system('id')",
    "sockets": "import socket",
    "web requests": "import urllib.request",
    "foreign functions": "import ctypes",
    "reading a file": "open('/etc/hostname').read()",
    "reading a file that is not there": "open('/no/such/file').read()",
    "reading a file by path": "from pathlib import Path\nPath('/etc/hostname').read_text()",
    "writing a file": "open('/tmp/written-by-restricted', 'w').write('x')",
    "listing a directory": "import os\nos.listdir('/')",
    "the environment": "import os\nos.environ",
    "a variable of the environment": "import os\nos.getenv('PATH')",
    "standard input": "input()",
    "this process's packages": "import pydantic_ai",
}


@pytest.mark.parametrize("code", REFUSED.values(), ids=REFUSED.keys())
async def test_it_is_refused(code: str) -> None:
    result = await evaluate(code)
    assert result.error is not None
    assert (result.value, result.printed) == (None, "")


async def test_a_refused_file_does_not_tell_whether_it_exists() -> None:
    there, missing = await asyncio.gather(evaluate("open('/etc/hostname')"), evaluate("open('/etc/no-such')"))
    assert there.error is not None
    assert missing.error is not None
    assert there.error.replace("hostname", "no-such") == missing.error


@pytest.mark.skipif(not Path("/proc").exists(), reason="needs /proc")
async def test_the_interpreter_does_not_get_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "hunter2-in-environment")
    task = asyncio.create_task(evaluate("while True: pass", timeout=1))
    await asyncio.sleep(0.5)
    found = interpreters_of_this_process()
    assert found
    assert not [process for process in found if b"hunter2" in Path(f"/proc/{process}/environ").read_bytes()]
    with pytest.raises(TimeoutError):
        await task


def interpreters_of_this_process() -> list[str]:
    found: list[str] = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
        except OSError:  # it has ended
            continue
        if fields["PPid"] == str(os.getpid()) and fields["Name"] == "monty":
            found.append(status.parent.name)
    return found


TOO_LONG = {
    "an endless loop": "while True: pass",
    "an endless loop that catches everything": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "growing integers": "x = 1\nfor i in range(1, 10**7):\n    x *= i",
    "a power with a modulus": "pow(3**200000, 7**100000, 5**200000 + 1)",
    "one long operation": "import math\nmath.gcd(7**4000000, 3**4000000)",
    "one long multiplication after another": "x = 7**2000000\nwhile True:\n    y = x * x",
    "a factorial": "import math\nmath.factorial(10**7)",
    "a long sum": "sum(range(10**12))",
    "a repr that does not end": "class R:\n    def __repr__(self):\n        while True: pass\nR()",
    "printing without end": "while True: print('x' * 1000)",
    "sleeping without end": "import time\nwhile True: time.sleep(1000)",
}


@pytest.mark.parametrize("code", TOO_LONG.values(), ids=TOO_LONG.keys())
async def test_it_is_stopped_in_time_and_the_event_loop_goes_on(code: str) -> None:
    async with heartbeat() as heart:
        started = time.perf_counter()
        with pytest.raises(TimeoutError, match=r"longer than 0\.5 s"):
            await evaluate(code, timeout=0.5)
        took = time.perf_counter() - started
    assert took < 10
    assert heart.latest < 1
    assert heart.beats > 10


TOO_MUCH = {
    "a huge power": "9**9**9",
    "a huge shift": "1 << 10**12",
    "a huge text": "'a' * 10**10",
    "huge bytes": "bytes(10**10)",
    "a huge list": "[0] * 10**10",
    "a long range as a list": "list(range(10**10))",
    "a list that grows": "x = []\nwhile True:\n    x.append(1)",
    "a text that doubles": "x = 'a'\nwhile True:\n    x += x",
    "lists in lists": "x = []\nwhile True:\n    x = [x]",
    "a set that grows": "s = set()\ni = 0\nwhile True:\n    s.add(i)\n    i += 1",
    "objects without end": "class A: pass\n[A() for _ in range(10**8)]",
    "a text that joins": "('a' * 1000000).join(['b'] * 100000)",
    "a text that replaces": "('a' * 10000000).replace('a', 'b' * 1000)",
    "a wide format": "f'{1:>10000000000}'",
    "a wide old format": "'%10000000000d' % 1",
    "many digits": "'%.*f' % (10**9, 1.0)",
    "a product": "import itertools\nlist(itertools.product(range(100), repeat=10))",
    "a huge message": "raise ValueError('x' * 60000000)",
    "memory taken again and again": "while True:\n    try:\n        x = 'a' * 10**10\n    except BaseException: pass",
}


@pytest.mark.parametrize("code", TOO_MUCH.values(), ids=TOO_MUCH.keys())
async def test_it_meets_the_memory_limit_and_the_event_loop_goes_on(code: str) -> None:
    async with heartbeat() as heart:
        with pytest.raises(ResourceExhaustedError, match="64 MiB") as caught:
            await evaluate(code, timeout=20)
    assert (caught.value.resource, caught.value.limit) == ("memory", 64 << 20)
    assert heart.latest < 1


HARMLESS = {
    "deep recursion": "def f(n): return f(n + 1)\nf(0)",
    "deep nesting compared": "x = []\ny = []\nfor i in range(100000):\n    x = [x]\n    y = [y]\nx == y",
    "deep nesting as the value": "x = []\nfor i in range(100000):\n    x = [x]\nx",
    "a list in itself": "x = []\nx.append(x)\nx",
    "the repr of parts shared a billion times": "x = [0] * 1000\nx = [x] * 1000\n[x] * 1000",
    "colliding keys": "m = 2**61 - 1\n{k * m: 0 for k in range(1, 40000)}",
    "more digits than are shown": "7**3000000",
    "digits read from a long text": "int('9' * 3000000)",
    "parentheses": "(" * 10000 + ")" * 10000,
    "signs": "-" * 19000 + "1",
    "attributes": "x" + ".a" * 9000,
    "lambdas": "lambda:" * 2500 + "1",
    "many lines": "x = 1\n" * 3000,
    "an open text of many lines": '"""' + "x\n" * 9000,
    "backtracking": "import re\nre.match(r'(a+)+$', 'a' * 40 + 'b')",
    "backtracking with a reference": "import re\nre.match(r'(a*)*b\\1', 'a' * 40)",
    "a pattern that multiplies": "import re\nre.compile('(?:a{1000}){1000}')",
    "nested JSON": "import json\njson.loads('[' * 1000000)",
    "leaving": "raise SystemExit(3)",
    "interrupting": "raise KeyboardInterrupt",
    "another repr": "repr = lambda x: [x] * 10\n5",
    "a repr that is no text": "class R:\n    def __repr__(self): return 5\nR()",
    "a value of the interpreter": "len",
    "half a character": "'\\ud800'",
    "a name of ours": "__value__ = 3\n__value__",
}


@pytest.mark.parametrize("code", HARMLESS.values(), ids=HARMLESS.keys())
async def test_it_ends_as_an_ordinary_result(code: str) -> None:
    async with heartbeat() as heart:
        result = await evaluate(code, timeout=20)
    assert heart.latest < 1
    for text in (result.printed, result.value or "", result.error or ""):
        assert isinstance(text, str)
        assert len(text) < 12_000


async def test_long_output_keeps_both_ends_and_counts_what_is_missing() -> None:
    result = await evaluate("for i in range(100000): print(i)\n'x' * 50000", max_output=1000)
    lines = result.printed.split("\n")
    assert lines[0] == "0"
    assert lines[-2] == "99999"
    (marker,) = [line for line in lines if "omitted" in line]
    assert marker == f"[… {588_890 - 1000:,} characters omitted …]"  # of so many digits and line feeds
    assert len(result.printed) < 1100
    assert result.value == "'" + "x" * 999 + "…"


async def test_characters_that_show_nothing_are_escaped() -> None:
    result = await evaluate("print('\\x1b[31mred\\u202e\\x00\\u200b\\tä')")
    assert result.printed == "\\x1b[31mred\\u202e\\x00\\u200b\tä\n"


async def test_many_evaluations_at_once_each_get_their_own_answer() -> None:
    results = await asyncio.gather(*(evaluate(f"x = {n}\nx * x") for n in range(60)))
    assert [result.value for result in results] == [str(n * n) for n in range(60)]


async def test_waiting_for_others_does_not_count() -> None:
    slow = "x = 1\nfor i in range(10**9): x = i"
    results = await asyncio.gather(
        *(evaluate(slow, timeout=0.5) for _ in range(16)), evaluate("1 + 1"), return_exceptions=True
    )
    assert all(isinstance(result, TimeoutError) for result in results[:-1])
    assert getattr(results[-1], "value", None) == "2"


def interpreters() -> list[Path]:
    """The interpreters' processes that are there, those that ended but were not waited for too."""
    children = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return [Path("/proc", pid) for found in children for pid in found.read_text().split() if is_interpreter(pid)]


def is_interpreter(pid: str) -> bool:
    try:
        return "monty" in Path("/proc", pid, "comm").read_text()
    except OSError:
        return False


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.01, 0.2])
async def test_a_cancelled_evaluation_is_left_at_once_and_its_process_killed(delay: float) -> None:
    tasks = [asyncio.create_task(evaluate("while True: pass", timeout=60)) for _ in range(3)]
    await asyncio.sleep(delay)
    if delay == 0.2:
        assert interpreters()
    started = time.perf_counter()
    for task in tasks:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    while interpreters():
        assert time.perf_counter() - started < 20, "an interpreter goes on"
        await asyncio.sleep(0.01)
    assert time.perf_counter() - started < 20
    assert (await evaluate("1")).value == "1"


@pytest.mark.parametrize("attack", ["while True: pass", "raise ValueError('x' * 60000000)", "while True: print(1)"])
def test_a_process_ends_well_right_after_an_attack(attack: str) -> None:
    script = """
import asyncio, sys
from pydantic_ai_sandbox.restricted import evaluate
async def main():
    attacks = [asyncio.create_task(evaluate(sys.argv[1], timeout=0.3)) for _ in range(4)]
    await asyncio.wait(attacks, timeout=0.2)
    [attack.cancel() for attack in attacks]
    await asyncio.gather(*attacks, return_exceptions=True)
asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, attack], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_forked_after_an_evaluation_is_told_instead_of_waiting_for_ever() -> None:
    script = """
import asyncio, os
from pydantic_ai_sandbox.restricted import evaluate
asyncio.run(evaluate("1"))
if os.fork() == 0:
    try:
        asyncio.run(evaluate("1"))
    except Exception as error:
        print(type(error).__name__, flush=True)
    os._exit(0)
os.wait()
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert ended.stdout.strip() == SandboxError.__name__


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("1" * 20_001, {}),
        ("'\ud800'", {}),
        ("1", {"timeout": 0}),
        ("1", {"timeout": float("inf")}),
        ("1", {"memory": 1000}),
        ("1", {"max_output": 0}),
    ],
)
async def test_what_makes_no_sense_is_refused(code: str, options: dict[str, float]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 — a message each
        await evaluate(code, **options)  # type: ignore[arg-type]


OBJECT = "[1, [2]]"


@pytest.mark.parametrize(
    "code",
    [
        f"{OBJECT} or \\",
        f"x = {OBJECT}\nx or \\\n",
        f"x = {OBJECT}\n(x or",
        f"1)\n{OBJECT} or (2",
        f"0 or {OBJECT};",
        f"if 1: {OBJECT}",
        f"repr = lambda x: {OBJECT}\n5",
        f"class R:\n    def __repr__(self): return {OBJECT}\nR()",
        f"class R:\n    def __format__(self, how): return {OBJECT}\nR()",
        f"__value__ = {OBJECT}\n__value__ or \\",
    ],
)
async def test_no_object_of_the_code_is_built_here(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    crossed: list[object] = []
    program = evaluation._program

    def watching(session: Any, *args: Any) -> Any:
        made = program(session, *args)
        with suppress(MontyError):
            crossed.append(session.feed_run(made.text))
        return made

    monkeypatch.setattr(evaluation, "_program", watching)
    await evaluate(code)
    assert all(value is None or type(value) is str for value in crossed)


NUMBERS = st.one_of(st.integers(-(10**12), 10**12), st.floats(-1e9, 1e9))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(NUMBERS, min_size=1, max_size=6), st.text(max_size=30))
def test_values_are_what_python_says(numbers: list[float], text: str) -> None:
    result = asyncio.run(evaluate("[sorted(numbers), max(numbers), text]", inputs={"numbers": numbers, "text": text}))
    assert result.error is None
    assert result.value is not None
    assert result.value.startswith(repr([sorted(numbers), max(numbers)])[:-1])


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("ax1 \n\t()[]{}'\"\\#:;=+,.\r\x0c"), max_size=60))
def test_any_text_is_evaluated_or_told_what_is_wrong(code: str) -> None:
    result = asyncio.run(evaluate(code))
    assert result.error is None or result.value is None
