r"""Characters: what a stranger's text becomes before a model reads it.

Commands print, files contain and directories are named whatever somebody hostile likes. The rules, in this order:

1. Terminal escape sequences (CSI, OSC, DCS and the short ones, 7-bit and 8-bit) are dropped from a command's output;
   of a line rewritten with `\r` only the last writing stays, and `\b` takes back the character before it.
2. Every other control character except `\n` and `\t` becomes visible (`\x07`), and so do bidirectional overrides,
   zero-width and "tag" characters, line separators that are no line feed, and lone surrogates: a byte that was no
   UTF-8 shows as `\xff`. The result can always be encoded and always looks like what it is. The joiners that emoji and
   some scripts need stay.
3. A line of output that could be taken for one of *our* lines, which are `[… counted markers …]`, `[stderr]` and
   `[a · b · c]` (status), gets a backslash in front. So in what a model reads such a line without a backslash is ours,
   and the status is always the last line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = (
    "Clipped",
    "clip",
    "count",
    "duration",
    "inline",
    "output",
    "rendered_path",
    "shares",
    "size",
    "status",
    "visible",
)

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and line feed, DEL, C1
    "\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # invisible or direction-changing
    "\ud800-\udfff"
    "\U000e0000-\U000e0fff]"  # tags and supplementary variation selectors: text that nobody sees
)
_ESCAPE_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-OQ-WYZ\\`-~]"
)
_BRACKETED_LINE = re.compile(r"^\[.*$", re.MULTILINE)
_BREAKS = str.maketrans({"\n": "\\n", "\t": "\\t"})

_SEPARATOR = " · "
_CLEANED = 1 << 19
"""Characters of a command's output that are looked at: more is cut in the middle first, to bound the work."""
_LINE_END_WITHIN = 4096
"""Characters that are given up to make that cut at a line end."""


def visible(text: str) -> str:
    r"""`text` with nothing in it that hides, moves or cannot be encoded; `\n` and `\t` stay."""
    return _UNSAFE.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8, as "surrogateescape" writes it
        return f"\\x{code - 0xDC00:02x}"
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def inline(text: str, limit: int = 300) -> str:
    """`text` as part of one of our own lines: no line breaks, at most `limit` characters and an ellipsis."""
    shown = visible(text[: limit + 1]).translate(_BREAKS)
    return shown if len(shown) <= limit else shown[:limit] + "…"


def rendered_path(path: str) -> str:
    """`path` on one line, quoted where it would be unclear where it ends."""
    shown = inline(path, 4096)
    unclear = shown != shown.strip() or ":" in shown or not shown or _looks_like_ours(shown)
    return f'"{shown}"' if unclear else shown


def output(raw: str) -> str:
    """What a command printed, as the module's rules 1 to 3 leave it, without the line feeds at its end."""
    text = _ESCAPE_SEQUENCE.sub("", raw)
    if "\r" in text or "\b" in text:
        text = "\n".join(_as_on_screen(line) for line in text.split("\n"))
    return _disarm(visible(text)).rstrip("\n")


def _as_on_screen(line: str) -> str:
    rewrites = [part for part in line.split("\r") if part]
    line = rewrites[-1] if rewrites else ""
    return _backspaced(line) if "\b" in line else line


def _backspaced(line: str) -> str:
    kept: list[str] = []
    for character in line:
        if character != "\b":
            kept.append(character)
        elif kept:
            kept.pop()
    return "".join(kept)


def _disarm(text: str) -> str:
    return _BRACKETED_LINE.sub(lambda match: f"\\{match[0]}" if _looks_like_ours(match[0]) else match[0], text)


def _looks_like_ours(line: str) -> bool:
    line = line.rstrip()
    return line == "[stderr]" or line.startswith("[…") or (line.endswith("]") and "·" in line)


def status(*parts: str) -> str:
    """One of our own lines about a whole answer: `[a · b · c]`, empty parts left out."""
    return f"[{_SEPARATOR.join(part for part in parts if part)}]"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 line`, `2 lines`, `1,234 lines`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def size(number: int) -> str:
    """A number of bytes for people: `340 B`, `1.2 KiB`, `10 MiB`."""
    if number < 1024:
        return f"{number} B"
    value = float(number)
    for unit in ("KiB", "MiB", "GiB"):
        value /= 1024
        if value < 1023.95:
            return f"{value:.1f}".removesuffix(".0") + f" {unit}"
    return f"{value / 1024:.1f}".removesuffix(".0") + " TiB"


def duration(seconds: float) -> str:
    """Seconds for people, who compare them with a timeout: `0.3 s`, `42 s`, `3600 s`."""
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def shares(lengths: Sequence[int], limit: int) -> Sequence[int]:
    """`limit` divided between texts of these lengths: to each the same, and what one does not need to the others."""
    result = [0] * len(lengths)
    left, waiting = limit, len(lengths)
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        # Whoever comes last, the longest, gets all that is left.
        result[index] = min(lengths[index], left // waiting) if waiting > 1 else left
        left, waiting = left - result[index], waiting - 1
    return result


@dataclass(frozen=True)
class Clipped:
    """Text that fits, and whether something had to be left out."""

    text: str
    omitted: int = 0
    """Bytes left out in the middle."""


def clip(head: str, tail: str, omitted: int, limit: int, marker: Callable[[int], str]) -> Clipped:
    """A command's output, cleaned, in at most `limit` characters and a marker line where something is missing.

    Args:
        head: The beginning of what was captured, or all of it.
        tail: The end of what was captured, empty unless `omitted`.
        omitted: Bytes that were not captured between the two.
        limit: Characters to keep, half of them from each end.
        marker: Makes the marker line from the number of bytes left out.
    """
    if not omitted and len(head) + len(tail) <= _CLEANED:
        whole = output(head + tail)
        if len(whole) <= limit:
            return Clipped(whole)
        middle = len(whole) // 2
        return _join(whole[:middle], whole[middle:], 0, limit, marker)
    head, tail, omitted = _cut_raw(head, tail, omitted)
    return _join(output(head), output(tail), omitted, limit, marker)


def _cut_raw(head: str, tail: str, omitted: int) -> tuple[str, str, int]:
    """Both ends cut to what may be cleaned, at line ends so that no escape sequence is cut in two."""
    if not omitted:
        head, tail = head + tail, ""
        middle = len(head) // 2
        head, tail = head[:middle], head[middle:]
    kept_head, kept_tail = head[: _CLEANED // 2], tail[-_CLEANED // 2 :]
    kept_head = kept_head[: kept_head.rfind("\n", -_LINE_END_WITHIN) + 1] or kept_head
    kept_tail = kept_tail[kept_tail.find("\n", 0, _LINE_END_WITHIN) + 1 :] or kept_tail
    return kept_head, kept_tail, omitted + _bytes(head[len(kept_head) :]) + _bytes(tail[: len(tail) - len(kept_tail)])


def _join(head: str, tail: str, omitted: int, limit: int, marker: Callable[[int], str]) -> Clipped:
    """Shares `limit` between both ends and counts what falls out; prefers to cut at a line end."""
    kept_tail = tail[len(tail) - min(len(tail), max(limit // 2, limit - len(head))) :]
    kept_head = head[: limit - len(kept_tail)]
    if len(kept_head) < len(head):
        kept_head = kept_head[: _near_end(kept_head)]
    if len(kept_tail) < len(tail):
        kept_tail = kept_tail[_near_start(kept_tail) :]
    omitted += _bytes(head[len(kept_head) :]) + _bytes(tail[: len(tail) - len(kept_tail)])
    # Cutting can leave a piece of a line that looks like ours although the line did not.
    lines = (_disarm(kept_head).rstrip("\n"), marker(omitted), _disarm(kept_tail))
    return Clipped("\n".join(line for line in lines if line), omitted)


def _near_end(text: str) -> int:
    at = text.rfind("\n", len(text) * 3 // 4)
    return at + 1 if at >= 0 else len(text)


def _near_start(text: str) -> int:
    at = text.find("\n", 0, len(text) // 4)
    return at + 1


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
