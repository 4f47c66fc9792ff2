"""Exact replacement of text in a file's bytes, and the messages that help whoever gave the text.

Nothing here does I/O. A replacement is exact or it does not happen: the search for similar lines only ever makes an
error message more useful. Every byte outside the replaced text stays as it is, because each decoding used here maps
bytes to text and back without loss.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .errors import EditError

__all__ = ("Replacement", "TextEncoding", "changed_since_read", "detect_encoding", "replace_text")

_UNDEFINED_IN_CP1252 = {byte: chr(byte) for byte in (0x81, 0x8D, 0x8F, 0x90, 0x9D)}
_WINDOWS_1252 = "".join(
    _UNDEFINED_IN_CP1252.get(byte) or bytes([byte]).decode("cp1252", "replace") for byte in range(256)
)
"""Latin-1 as browsers read it. Total, unlike Python's `cp1252`: any bytes survive decoding and encoding."""
_WINDOWS_1252_ENCODING = codecs.charmap_build(_WINDOWS_1252)

_BYTE_ORDER_MARKS = (
    # UTF-32 first: its little-endian mark begins with UTF-16's.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

_SHOWN_POSITIONS = 20
"""Line numbers named when the text is there too often."""
_SHOWN_LINES = 10
"""Lines quoted when the text is not there."""
_SHOWN_LINE_LENGTH = 200
"""Characters quoted of each."""
_SEARCHED_LINES = 20_000
"""Lines looked at for similar ones, so that an error costs bounded time."""
_COMPARED_LENGTH = 400
"""Characters compared of each."""
_LIKENESS = 0.4
"""Share of words two lines must have in common to be called near."""


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """A replacement that was made."""

    content: bytes
    """The new content."""
    lines: Sequence[int]
    """1-based line numbers, in the new content, at which the replacements begin."""


@dataclass(frozen=True)
class TextEncoding:
    """How a file's bytes are text: `decode` and `encode` undo each other, byte order mark included."""

    name: str
    """`"utf-8"`, `"utf-16-le"`, `"utf-16-be"`, `"utf-32-le"`, `"utf-32-be"` or `"windows-1252"` (a superset of latin-1)."""

    def decode(self, content: bytes) -> str:
        """The text; a byte order mark is its first character."""
        if self.name == "windows-1252":
            # A string is a table too, and the fastest.
            return codecs.charmap_decode(content, "strict", _WINDOWS_1252)[0]  # pyright: ignore[reportArgumentType]
        return content.decode(self.name, _lossless(self.name))

    def encode(self, text: str) -> bytes:
        """The bytes.

        Raises:
            UnicodeEncodeError: The encoding has no such character.
        """
        if self.name == "windows-1252":
            return codecs.charmap_encode(text, "strict", _WINDOWS_1252_ENCODING)[0]
        return text.encode(self.name, _lossless(self.name))


def _lossless(encoding: str) -> str:
    return "surrogateescape" if encoding == "utf-8" else "surrogatepass"


def detect_encoding(content: bytes) -> TextEncoding:
    """The encoding of a file: what its byte order mark says, else UTF-8 if it is valid, else windows-1252."""
    return _candidates(content)[-1]


def _candidates(content: bytes) -> list[TextEncoding]:
    """The encodings to look for text in, in order; the last one is the file's own."""
    for mark, name in _BYTE_ORDER_MARKS:
        if content.startswith(mark) and _is_valid(content, name):
            return [TextEncoding(name)]
    utf8 = TextEncoding("utf-8")
    # A stray byte makes a UTF-8 file invalid as a whole: its UTF-8 parts can still be found as what they are.
    return [utf8] if _is_valid(content, "utf-8") else [utf8, TextEncoding("windows-1252")]


def _is_valid(content: bytes, encoding: str) -> bool:
    try:
        content.decode(encoding, "strict" if encoding == "utf-8" else "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def changed_since_read(path: str) -> EditError:
    """The error for the file at `path` when its content is not the one that was last read."""
    return EditError(f"{path} changed since you last read it; read it again, then decide anew what to change")


def replace_text(content: bytes, old: str, new: str, *, replace_all: bool = False) -> Replacement:
    r"""Replace `old`, which must be there exactly once unless `replace_all`, by `new`.

    The file's encoding, byte order mark and line endings are kept: where `old` has `\n` and the file has `\r\n`, it
    matches, and `new` gets the file's line endings.

    Raises:
        EditError: `old` is empty, equal to `new`, not there, there more than once, or `new` has a character that the
            file's encoding lacks. The message says which and where.
    """
    _check_arguments(old, new)
    candidates = _candidates(content)
    for encoding in candidates:
        text = encoding.decode(content)
        for spelled_old, spelled_new in _spellings(text, old, new):
            positions = _positions(text, spelled_old)
            # Plain ASCII is found under every encoding; what is put in its place must be in the file's own.
            if positions and not (encoding != candidates[-1] and old.isascii()):
                _check_unique(text, positions, replace_all=replace_all)
                return _replace(text, positions, spelled_old, spelled_new, encoding)
    raise EditError(_not_found(candidates[-1].decode(content), old))


def _check_arguments(old: str, new: str) -> None:
    if not old:
        raise EditError("old_string is empty; give the exact text to replace")
    if old == new:
        raise EditError("old_string and new_string are the same; nothing to change")
    try:
        new.encode()
    except UnicodeEncodeError:
        raise EditError("new_string contains a lone surrogate, which no file can hold") from None


def _spellings(text: str, old: str, new: str) -> Iterator[tuple[str, str]]:
    """`old` and `new` as they are, then with the line endings of a file that has CRLF."""
    crlf = text.count("\r\n")
    mostly_crlf = crlf * 2 > text.count("\n")
    if "\n" not in old:
        yield old, _with_crlf(new) if mostly_crlf else new
        return
    yield old, new
    if crlf and "\r" not in old:
        yield _with_crlf(old), _with_crlf(new)


def _with_crlf(text: str) -> str:
    return re.sub("\r?\n", "\r\n", text)


def _positions(text: str, old: str) -> list[int]:
    """Where `old` is, without overlaps; but an overlapping second place makes a single one ambiguous, so it counts."""
    positions: list[int] = []
    at = text.find(old)
    while at >= 0:
        positions.append(at)
        at = text.find(old, at + len(old))
    if len(positions) == 1 and (overlapping := text.find(old, positions[0] + 1)) >= 0:
        positions.append(overlapping)
    return positions


def _check_unique(text: str, positions: Sequence[int], *, replace_all: bool) -> None:
    if len(positions) == 1 or replace_all:
        return
    lines = _line_numbers(text, positions[:_SHOWN_POSITIONS])
    shown = ", ".join(str(line) for line in lines) + (", …" if len(positions) > _SHOWN_POSITIONS else "")
    raise EditError(
        f"found {len(positions)}, at lines {shown}; "
        "old_string must be unique: add more of the lines around it, or set replace_all"
    )


def _line_numbers(text: str, positions: Sequence[int]) -> list[int]:
    numbers: list[int] = []
    line, counted = 1, 0
    for position in positions:
        line += text.count("\n", counted, position)
        counted = position
        numbers.append(line)
    return numbers


def _replace(text: str, positions: Sequence[int], old: str, new: str, encoding: TextEncoding) -> Replacement:
    # `str.replace` and `_positions` agree, except that the latter also names one overlapping place.
    replaced = text.replace(old, new)
    places = [at for index, at in enumerate(positions) if not index or at >= positions[index - 1] + len(old)]
    shift = len(new) - len(old)
    try:
        content = encoding.encode(replaced)
    except UnicodeEncodeError as error:
        raise EditError(
            f"the file is encoded in {encoding.name}, which has no {error.object[error.start]!r}; "
            "use other characters in new_string"
        ) from None
    return Replacement(
        content=content, lines=_line_numbers(replaced, [at + shift * index for index, at in enumerate(places)])
    )


def _not_found(text: str, old: str) -> str:
    if not text:
        return "found 0: the file is empty"
    lines = text.split("\n", _SEARCHED_LINES)[:_SEARCHED_LINES]
    wanted = old.strip("\n").split("\n")
    start, remark = _nearest(lines, wanted)
    if start is None:
        return "found 0 occurrences of old_string, and no similar lines; read the file to see what is there"
    quoted = lines[start : start + min(len(wanted), _SHOWN_LINES)]
    numbers = f"lines {start + 1}-{start + len(quoted)}" if len(quoted) > 1 else f"line {start + 1}"
    shown = [f"{start + 1 + index}\t{_quote(line)}" for index, line in enumerate(quoted)]
    return "\n".join([f"found 0 occurrences of old_string; nearest {numbers}{remark}:", *shown])


def _quote(line: str) -> str:
    line = line.removesuffix("\r")
    return line if len(line) <= _SHOWN_LINE_LENGTH else line[:_SHOWN_LINE_LENGTH] + "…"


def _nearest(lines: Sequence[str], wanted: Sequence[str]) -> tuple[int | None, str]:
    """Index of the line at which something like `wanted` begins, and what is known about the difference."""
    stripped = [line[:_COMPARED_LENGTH].strip() for line in lines]
    targets = [line[:_COMPARED_LENGTH].strip() for line in wanted[:50]]
    if (start := _same_but_for_whitespace(stripped, targets)) is not None:
        complete = len(wanted) == len(targets) and stripped[start : start + len(targets)] == targets
        return start, " (only whitespace differs)" if complete else ""
    return _similar_by_words(stripped, targets), ""


def _same_but_for_whitespace(stripped: Sequence[str], targets: Sequence[str]) -> int | None:
    """The start that the most characters of equal lines vote for."""
    offsets: dict[str, list[int]] = {}
    for index, target in enumerate(targets):
        if target:
            offsets.setdefault(target, []).append(index)
    votes: Counter[int] = Counter()
    for number, line in enumerate(stripped):
        for offset in offsets.get(line, ()):
            if number >= offset:
                votes[number - offset] += len(line)
    return max(votes, key=lambda start: (votes[start], -start)) if votes else None


def _similar_by_words(stripped: Sequence[str], targets: Sequence[str]) -> int | None:
    """The start that puts the longest wanted line on the line with the most words in common."""
    anchor = max(range(len(targets)), key=lambda index: len(targets[index]))
    words = _words(targets[anchor])
    if not words:
        return None
    likeness, number = max((_overlap(words, _words(line)), -number) for number, line in enumerate(stripped))
    return max(0, -number - anchor) if likeness >= _LIKENESS else None


def _words(line: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", line.lower()))


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if other else 0.0
