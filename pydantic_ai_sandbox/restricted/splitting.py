"""Which part of some code is the expression at its end, whose value is the answer.

The interpreter itself is asked, so that hostile code never meets this process's own parser, which can be crashed, and
so that both always agree about the grammar.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ("split",)

_TRIES = 50
"""Lines from the end at which the last statement is looked for; nobody writes a longer expression by hand."""
_NO_BEGINNING = (" ", "\t", "#", ")", "]", "}")


def split(code: str, parses: Callable[[str], bool]) -> tuple[str, str] | None:
    """`code` before its last statement, and that statement, if it is an expression that begins a line.

    Args:
        code: Any text.
        parses: Whether the interpreter takes a text as statements; it must not run them.
    """
    lines = code.split("\n")
    beginnings = [at for at, line in enumerate(lines) if line.strip() and not line.startswith(_NO_BEGINNING)]
    for at in reversed(beginnings[-_TRIES:]):
        before, last = "".join(f"{line}\n" for line in lines[:at]), "\n".join(lines[at:])
        if parses(before):  # else it ends within a statement, and `at` is no beginning
            return (before, last) if parses(f"(\n{last}\n)") else None
    return None
