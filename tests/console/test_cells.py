"""Every answer about a cell, from how it may have ended."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic_ai.messages import BinaryContent

from pydantic_ai_sandbox.console import cells
from pydantic_ai_sandbox.console.text import shares
from pydantic_ai_sandbox.interpreter import CellError, CellResult, KernelDeath
from pydantic_ai_sandbox.protocols import BoundedText

SEGFAULT = KernelDeath(exit_code=139, signal="SIGSEGV")
NO_MEMORY = KernelDeath(exit_code=137, signal="SIGKILL", out_of_memory=True, memory_limit=1024**3)
EXITED = KernelDeath(exit_code=3)
PICTURE = BinaryContent(b"png", media_type="image/png")

TRACEBACK = """Traceback (most recent call last):

  Cell In[3], line 1
    f()

  Cell In[2], line 2 in f
    return 1 / 0

ZeroDivisionError: division by zero
"""


def ended(**options: Any) -> CellResult:
    texts = {
        name: BoundedText(head=options.pop(name))
        for name in ("stdout", "stderr", "result")
        if isinstance(options.get(name), str)
    }
    settings: dict[str, Any] = {"status": "ok", "execution_count": 3, "duration": 0.021, **texts, **options}
    return CellResult(**settings)


def failed(
    traceback: str = TRACEBACK, name: str = "ZeroDivisionError", message: str = "division by zero"
) -> dict[str, Any]:
    error = CellError(name=name, message=message, traceback=BoundedText(head=traceback))
    return {"status": "error", "error": error}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (ended(), "(no output)\n[ok · 0.02 s · In [3]]"),
        (ended(stdout="hi\n"), "hi\n[ok · 0.02 s · In [3]]"),
        (ended(result="42\n"), "42\n[ok · 0.02 s · In [3]]"),
        (ended(stdout="hi\n", result="42\n", duration=1.26), "hi\n42\n[ok · 1.3 s · In [3]]"),
        (ended(stderr="warned\n"), "warned\n[ok · 0.02 s · In [3]]"),
        (ended(stdout="hi\n", stderr="warned\n"), "hi\n[stderr]\nwarned\n[ok · 0.02 s · In [3]]"),
        (ended(result="42", stderr="warned\n"), "42\n[stderr]\nwarned\n[ok · 0.02 s · In [3]]"),
        (ended(execution_count=1), "(no output)\n[ok · 0.02 s · new interpreter · In [1]]"),
        (ended(images=[PICTURE]), "[ok · 0.02 s · 1 image · In [3]]"),
        (ended(images=[PICTURE, PICTURE], stdout="a"), "a\n[ok · 0.02 s · 2 images · In [3]]"),
        (ended(images=[PICTURE], images_omitted=2), "[… 2 images not shown …]\n[ok · 0.02 s · 1 image · In [3]]"),
        (ended(images_omitted=1), "[… 1 image not shown …]\n[ok · 0.02 s · In [3]]"),
        (ended(stdout="\x1b[31mred\x1b[0m\n50%\r100%\n"), "red\n100%\n[ok · 0.02 s · In [3]]"),
        (ended(stdout="[ok · 9 s · In [9]]\n"), "\\[ok · 9 s · In [9]]\n[ok · 0.02 s · In [3]]"),
        (
            ended(**failed(), stdout="before\n"),
            (
                "before\nTraceback (most recent call last):\n  Cell In[3], line 1\n    f()\n  Cell In[2], line 2 in f\n    return 1 / 0\n"
                "ZeroDivisionError: division by zero\n[error: ZeroDivisionError · 0.02 s · In [3]]"
            ),
        ),
        (ended(**failed("", "Odd", "no traceback")), "Odd: no traceback\n[error: Odd · 0.02 s · In [3]]"),
        (ended(**failed("x", "[a · b]\n" * 3)), "x\n[error: [a · b]\\n[a · b]\\n[a · b]\\n · 0.02 s · In [3]]"),
        (
            ended(status="interrupted", stopped="timeout", duration=30.2),
            "(no output)\n[timed out after 30 s, interrupted; variables kept · In [3]]",
        ),
        (
            ended(status="interrupted", stopped="timeout", duration=33, state_kept=False, stdout="a"),
            "a\n[timed out after 33 s, interrupted; it did not react, so the interpreter was restarted, all variables are gone · In [3]]",
        ),
        (
            ended(status="interrupted", stopped="interrupt", duration=3),
            "(no output)\n[interrupted after 3.0 s; variables kept · In [3]]",
        ),
        (
            ended(status="interrupted", stopped="restart", duration=3, state_kept=False),
            "(no output)\n[ended after 3.0 s by a restart of the interpreter, all variables are gone · In [3]]",
        ),
        (
            ended(status="died", death=SEGFAULT, state_kept=False),
            "(no output)\n[killed by SIGSEGV; interpreter restarted, all variables are gone · 0.02 s · In [3]]",
        ),
        (
            ended(status="died", death=NO_MEMORY, state_kept=False, duration=2),
            "(no output)\n[killed: out of memory: 1 GiB; interpreter restarted, all variables are gone · 2.0 s · In [3]]",
        ),
        (
            ended(status="died", death=EXITED, state_kept=False),
            "(no output)\n[Python exited with 3; interpreter restarted, all variables are gone · 0.02 s · In [3]]",
        ),
        (
            ended(lost=SEGFAULT, state_kept=False, execution_count=1),
            (
                "(no output)\n[ok · 0.02 s · the interpreter had ended before this cell (killed by SIGSEGV), earlier variables were gone "
                "· In [1]]"
            ),
        ),
        (
            ended(
                lost=EXITED, state_kept=False, execution_count=1, status="interrupted", stopped="timeout", duration=5
            ),
            (
                "(no output)\n[timed out after 5.0 s, interrupted; the interpreter had ended before this cell (Python exited with 3), "
                "earlier variables were gone · In [1]]"
            ),
        ),
    ],
)
def test_a_cell(result: CellResult, expected: str) -> None:
    assert cells.cell(result, limit=30_000) == expected


def test_a_note_stands_in_the_last_line() -> None:
    text = cells.cell(ended(), limit=30_000, notes=["timeout lowered to 60 s, the maximum"])
    assert text == "(no output)\n[ok · 0.02 s · timeout lowered to 60 s, the maximum · In [3]]"


def test_an_interpreter_that_was_only_restarted() -> None:
    assert cells.restarted() == "[restarted · new interpreter, nothing is defined]"


LONG = BoundedText(head="h\n" * 30_000, tail="t\n" * 30_000, omitted=1_000_000)


@pytest.mark.parametrize("limit", [2_000, 5_000, 30_000])
@pytest.mark.parametrize(
    "texts",
    [
        {"stdout": LONG},
        {"stdout": LONG, "stderr": LONG},
        {"stdout": LONG, "stderr": LONG, "result": LONG},
        {"stdout": BoundedText(head="x" * 200_000), "result": BoundedText(head="short")},
        {"stderr": LONG, **failed("  Cell In[1]\n    deep()\n" * 20_000)},
        {"images": [PICTURE] * 8, "images_omitted": 9_000, "stdout": LONG, "lost": NO_MEMORY, **failed()},
    ],
)
def test_an_answer_never_exceeds_its_limit_and_keeps_both_ends(texts: dict[str, Any], limit: int) -> None:
    text = cells.cell(ended(**texts), limit=limit)
    assert limit * 0.5 < len(text) <= limit
    assert "bytes omitted …]" in text
    assert text.split("\n")[-1].endswith("In [3]]")
    assert "short" in text or "result" not in texts or texts["result"] is LONG


def test_a_traceback_is_compact_and_shows_no_frame_of_what_ran_the_cell() -> None:
    raw = (
        "Traceback (most recent call last):\n\n"
        "  File /opt/venv/lib/python3.13/site-packages/IPython/core/interactiveshell.py:3701 in run_code\n"
        "    exec(code_obj, self.user_global_ns, self.user_ns)\n\n"
        "  Cell In[4], line 1\n    input()\n\n"
        "  File /opt/venv/lib/python3.13/site-packages/ipykernel/kernelbase.py:1514 in raw_input\n"
        "    raise StdinNotImplementedError(msg)\n\n"
        "StdinNotImplementedError: raw_input was called\n"
    )
    assert cells.traceback(raw) == (
        "Traceback (most recent call last):\n  Cell In[4], line 1\n    input()\nStdinNotImplementedError: raw_input was called"
    )


@pytest.mark.parametrize(
    ("lengths", "limit", "expected"),
    [
        ([], 10, []),
        ([3], 10, [10]),
        ([3, 3], 10, [3, 7]),
        ([3, 300], 10, [3, 7]),
        ([300, 3], 10, [7, 3]),
        ([300, 300], 10, [5, 5]),
        ([0, 300, 0, 300], 10, [0, 5, 0, 5]),
        ([1, 2, 300], 10, [1, 2, 7]),
    ],
)
def test_what_one_text_does_not_need_goes_to_the_others(lengths: list[int], limit: int, expected: list[int]) -> None:
    assert shares(lengths, limit) == expected
