"""Answers about cells of an interpreter, as pure functions of how they ended.

In this order: what was printed, the value of the last expression, standard error, the traceback; then our line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..interpreter import CellError, CellResult, KernelDeath
from ..protocols import BoundedText
from .text import clip, count, duration, inline, shares, size, status

__all__ = ("cell", "restarted", "traceback")

_FRAME = re.compile(r"^  (?:File|Cell) ")
_OWN_FRAME = re.compile(r"^  File \S*/(?:ipykernel|IPython)/")
_GONE = "all variables are gone"


def cell(result: CellResult, *, limit: int, notes: Sequence[str] = ()) -> str:
    """What a cell printed and gave, and the line `[ok · 0.02 s · In [3]]` that says how it ended, in `limit` characters."""
    last = status(*_ending(result), *notes, _prompt(result))
    texts = (result.stdout, result.result, result.stderr, _traceback_of(result.error))
    limit = max(200, limit - len(last) - 60 * len(texts))
    allotted = shares([len(text.head) + len(text.tail) for text in texts], limit)
    *shown, stderr, error = (
        clip(text.head, text.tail, text.omitted, share, _omitted).text
        for text, share in zip(texts, allotted, strict=True)
    )
    label = "[stderr]" if stderr and any(shown) else ""
    left_out = f"[… {count(result.images_omitted, 'image')} not shown …]" if result.images_omitted else ""
    body = [part for part in (*shown, label, stderr, error, left_out) if part]
    return "\n".join([*body, last] if body or result.images else ["(no output)", last])


def restarted() -> str:
    """The answer for an interpreter that was replaced and given nothing to do."""
    return status("restarted", "new interpreter, nothing is defined")


def traceback(text: str) -> str:
    """A traceback without the empty lines between its frames and without the frames of what ran the cell."""
    kept: list[str] = []
    own = False
    for line in text.split("\n"):
        if _FRAME.match(line):
            own = bool(_OWN_FRAME.match(line))
        elif not line.startswith("    "):
            own = False
        if line.strip() and not own:
            kept.append(line)
    return "\n".join(kept)


def _traceback_of(error: CellError | None) -> BoundedText:
    if error is None:
        return BoundedText(head="")
    told = error.traceback
    if not told.head.strip():
        return BoundedText(head=f"{error.name}: {error.message}")
    return BoundedText(head=traceback(told.head), tail=traceback(told.tail), omitted=told.omitted)


def _omitted(omitted: int) -> str:
    return f"[… {omitted:,} bytes omitted …]"


def _prompt(result: CellResult) -> str:
    return f"In [{result.execution_count}]"


def _ending(result: CellResult) -> Sequence[str]:
    """How a cell ended, how long that took, and what else the model has to know about its variables."""
    ran = _precise(result.duration)
    images = count(len(result.images), "image") if result.images else ""
    match result.status:
        case "ok":
            return "ok", ran, images, _before(result)
        case "error":
            how = f"error: {inline(result.error.name, 100)}" if result.error else "error"
            return how, ran, images, _before(result)
        case "interrupted":
            return _interrupted(result), images
        case "died":
            return f"{_death(result.death)}; interpreter restarted, {_GONE}", ran, images


def _interrupted(result: CellResult) -> str:
    after = f"after {duration(result.duration)}"
    if result.stopped == "restart":
        return f"ended {after} by a restart of the interpreter, {_GONE}"
    how = f"timed out {after}, interrupted" if result.stopped == "timeout" else f"interrupted {after}"
    if result.state_kept:
        return f"{how}; variables kept"
    if result.lost is not None:
        return f"{how}; {_before(result)}"
    return f"{how}; it did not react, so the interpreter was restarted, {_GONE}"


def _death(death: KernelDeath | None) -> str:
    if death is None:
        return "died"
    if death.out_of_memory:
        return "killed: out of memory" + (f": {size(death.memory_limit)}" if death.memory_limit else "")
    return f"killed by {inline(death.signal, 40)}" if death.signal else f"Python exited with {death.exit_code}"


def _before(result: CellResult) -> str:
    """What became of the variables of the cells before, if this one did not find them."""
    if result.lost is not None:
        return f"the interpreter had ended before this cell ({_death(result.lost)}), earlier variables were gone"
    return "new interpreter" if result.is_first and result.status in {"ok", "error"} else ""


def _precise(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 1 else duration(seconds)
