"""Text that code made, as a caller or a model may have it: bounded, and nothing in it that hides."""

from __future__ import annotations

__all__ = ("Printed", "cut", "visible")


class Printed:
    """Takes what code prints and keeps at most `limit` characters of it: the beginning and the end."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._head = ""
        self._tail = ""
        self._omitted = 0

    def __call__(self, stream: str, text: str) -> None:
        """More was printed, on whichever stream."""
        text = visible(text)
        room = self._half - len(self._head)
        self._head += text[:room]
        tail = self._tail + text[room:]
        self._omitted += max(0, len(tail) - self._half)
        self._tail = tail[-self._half :]

    def text(self) -> str:
        """What is kept, with a line that counts what is not."""
        if not self._omitted:
            return self._head + self._tail
        return f"{self._head}\n[… {self._omitted:,} characters omitted …]\n{self._tail}"


def cut(text: str, limit: int) -> str:
    """At most `limit` visible characters from the beginning of `text`, and an ellipsis where some are missing."""
    shown = visible(text[: limit + 1])
    return shown if len(shown) <= limit else f"{shown[:limit]}…"


def visible(text: str) -> str:
    r"""`text` with an escape (`\x1b`, `\u202e`) for every character that shows nothing; `\n` and `\t` stay."""
    return "\n".join(line if line.isprintable() else _escaped(line) for line in text.split("\n"))


def _escaped(line: str) -> str:
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in line)
