"""What a model gets of restricted evaluation, the missing extra, and the documentation's example."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pydantic_ai_sandbox.restricted import Evaluation, RestrictedToolset
from pydantic_ai_sandbox.restricted.toolset import answer
from tests.console.scripted import Answer, call, offered, play

PAGE = Path(__file__).parents[2] / "docs" / "restricted.md"


async def ask(code: str, **options: Any) -> Answer:
    (said,) = await play(None, call("evaluate", code=code), toolset=RestrictedToolset(**options))
    return said


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("6 * 7", "42"),
        ("print('hello')", "hello"),
        ("print('hello')\n6 * 7", "hello\n[value]\n42"),
        ("x = 1", "(no output)"),
        ("1 / 0", "[error]\nZeroDivisionError: division by zero (line 1: 1 / 0)"),
        ("print(1)\nfoo", "1\n[error]\nNameError: name 'foo' is not defined (line 2: foo)"),
    ],
)
async def test_a_model_reads_what_came_of_its_code(code: str, text: str) -> None:
    said = await ask(code)
    assert (said.text, said.outcome) == (text, "success")


@pytest.mark.parametrize(
    ("code", "why"),
    [("while True: pass", "longer than 0.5 s"), ("'a' * 10**10", "more than 8 MiB of memory")],
)
async def test_a_limit_is_told_and_the_run_goes_on(code: str, why: str) -> None:
    said = await ask(code, timeout=0.5, memory=8 << 20)
    assert why in said.text
    assert said.outcome == "failed"


async def test_code_that_cannot_be_taken_may_be_sent_again() -> None:
    assert (await ask("1" * 20_001)).outcome == "retry"


async def test_an_answer_is_bounded() -> None:
    said = await ask("print('a' * 50000)\n'b' * 50000", max_output=4000)
    assert len(said.text) <= 4000
    said = await ask("print('a' * 50000)\nraise ValueError('b' * 50000)", max_output=4000)
    assert len(said.text) <= 4000


async def test_parallel_calls_are_answered_each() -> None:
    calls = [call("evaluate", code=f"{n} + 1") for n in range(6)]
    answers = await play(None, calls, toolset=RestrictedToolset())
    assert [said.text for said in answers] == [str(n + 1) for n in range(6)]


async def test_the_tool_says_what_it_can_and_where_it_stops() -> None:
    (tool,) = (await offered(None, RestrictedToolset(timeout=1.5, memory=16 << 20))).values()
    assert (tool.name, list(tool.parameters_json_schema["properties"])) == ("evaluate", ["code"])
    assert tool.description is not None
    assert "1.5 s" in tool.description
    assert "16 MiB" in tool.description


@pytest.mark.parametrize("options", [{"timeout": 0}, {"memory": 10}, {"max_output": 100}])
def test_limits_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        RestrictedToolset(**options)


def test_an_empty_line_that_was_printed_is_no_value() -> None:
    assert answer(Evaluation(printed="\n")) == "(no output)"


def test_the_package_is_imported_without_the_extra_which_is_named_when_asked_for() -> None:
    script = """
import sys
sys.modules["pydantic_monty"] = None
import pydantic_ai_sandbox
try:
    import pydantic_ai_sandbox.restricted
except ImportError as error:
    print(error)
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pip install 'pydantic-ai-sandbox[restricted]'" in ended.stdout


def test_importing_the_package_does_not_import_the_interpreter() -> None:
    script = "import sys, pydantic_ai_sandbox; print([name for name in sys.modules if 'monty' in name])"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_the_documentations_example_prints_what_it_says() -> None:
    example, printed = re.findall(r"```(?:python|text)\n(.*?)```", PAGE.read_text(), re.DOTALL)[:2]
    ended = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, check=True)
    assert ended.stdout == printed
