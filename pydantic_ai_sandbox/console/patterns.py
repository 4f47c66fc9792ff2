r"""Glob patterns and `.gitignore` rules, matched without regular expressions.

Every match costs at most (length of the pattern) times (length of the name): `*a*a*a*b` cannot hang anything, which a
translation to `re` could not promise. The semantics are those of the runner (PROTOCOL.md, "Search"): `*` and `?` do not
cross `/`, `**` does, `[…]`, `{a,b}` (nested too), `\` escapes, a pattern without `/` matches the name at any depth.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ("Glob", "Ignore", "split_root")

_MOST_ALTERNATIVES = 1_000
_META = frozenset("*?[]{}\\")


@dataclass(frozen=True)
class _Class:
    """A character class."""

    negated: bool
    ranges: Sequence[tuple[str, str]]

    def matches(self, character: str) -> bool:
        return self.negated != any(low <= character <= high for low, high in self.ranges)


class _Star:
    """Any characters of one name."""


class _Any:
    """One character of a name."""


_STAR, _ANY = _Star(), _Any()
_Piece: TypeAlias = "str | _Class | _Star | _Any"
_Name: TypeAlias = "Sequence[_Piece] | None"
"""One component of a pattern; `None` is `**`: any number of components."""


class Glob:
    """A glob pattern.

    Raises:
        ValueError: The pattern is malformed.
    """

    def __init__(self, pattern: str) -> None:
        if not pattern:
            raise ValueError("the pattern is empty")
        self._anywhere = "/" not in pattern
        pattern = pattern.removeprefix(".").removeprefix("/") if pattern.startswith(("./", "/")) else pattern
        self._alternatives = [_components(alternative, strict=True) for alternative in _expand(pattern)]

    def matches(self, path: str) -> bool:
        """Whether `path`, relative and without `./`, matches."""
        parts = path.split("/")
        if self._anywhere:
            parts = parts[-1:]
        return any(_match_path(components, parts) for components in self._alternatives)


def split_root(pattern: str) -> tuple[str, str]:
    """An absolute pattern as the directory it starts in and the rest: `/a/b/*/x.py` is `/a/b` and `./*/x.py`."""
    parts = pattern.split("/")
    fixed = 1
    while fixed < len(parts) - 1 and not _META.intersection(parts[fixed]):
        fixed += 1
    return "/".join(parts[:fixed]) or "/", "./" + "/".join(parts[fixed:])


def _expand(pattern: str) -> list[str]:
    """Every pattern that the braces stand for."""
    done: list[str] = []
    waiting = [pattern]
    while waiting:
        current = waiting.pop()
        group = _first_group(current)
        if group is None:
            done.append(current)
        else:
            start, end, options = group
            waiting.extend(current[:start] + option + current[end + 1 :] for option in options)
        if len(done) + len(waiting) > _MOST_ALTERNATIVES:
            raise ValueError(f"the pattern has more than {_MOST_ALTERNATIVES:,} alternatives")
    return done


def _first_group(pattern: str) -> tuple[int, int, list[str]] | None:
    """The first outermost `{…}`: where it begins and ends, and its options."""
    depth, start, option_start = 0, 0, 0
    options: list[str] = []
    for at, character in _outside_classes(pattern):
        if character == "{":
            depth += 1
            if depth == 1:
                start, option_start, options = at, at + 1, []
        elif depth and character == "," and depth == 1:
            options.append(pattern[option_start:at])
            option_start = at + 1
        elif depth and character == "}":
            depth -= 1
            if not depth:
                return start, at, [*options, pattern[option_start:at]]
    if depth:
        raise ValueError(f"unclosed {{ in the pattern {pattern!r}")
    return None


def _outside_classes(pattern: str) -> Iterator[tuple[int, str]]:
    """Characters that are neither escaped nor in a class."""
    at = 0
    while at < len(pattern):
        character = pattern[at]
        if character == "\\":
            at += 1
        elif character == "[" and (end := _class_end(pattern, at)) is not None:
            at = end
        else:
            yield at, character
        at += 1


def _class_end(pattern: str, start: int) -> int | None:
    """Where the class that begins at `start` has its `]`."""
    at = start + 1
    if pattern[at : at + 1] in {"!", "^"}:
        at += 1
    first = True
    while at < len(pattern) and (pattern[at] != "]" or first):
        at += 2 if pattern[at] == "\\" else 1
        first = False
    return at if at < len(pattern) else None


def _components(pattern: str, *, strict: bool) -> list[_Name]:
    components: list[_Name] = []
    for part in pattern.split("/"):
        if part != "**":
            components.append(_tokens(part, strict=strict))
        elif not components or components[-1] is not None:
            components.append(None)
    return components


def _tokens(part: str, *, strict: bool) -> list[_Piece]:
    tokens: list[_Piece] = []
    at = 0
    while at < len(part):
        character = part[at]
        if character == "*":
            if not tokens or tokens[-1] is not _STAR:
                tokens.append(_STAR)
        elif character == "?":
            tokens.append(_ANY)
        elif character == "[" and (end := _class_end(part, at)) is not None:
            tokens.append(_class(part[at + 1 : end]))
            at = end
        elif character == "\\" and at + 1 < len(part):
            at += 1
            tokens.append(part[at])
        elif strict and character in "[\\":
            raise ValueError(
                f"unclosed [ in the pattern {part!r}" if character == "[" else "the pattern ends in a backslash"
            )
        else:
            tokens.append(character)
        at += 1
    return tokens


def _class(body: str) -> _Class:
    negated = body[:1] in {"!", "^"}
    characters = list(_unescaped(body[1:] if negated else body))
    ranges: list[tuple[str, str]] = []
    at = 0
    while at < len(characters):
        character, _ = characters[at]
        if at + 2 < len(characters) and characters[at + 1] == ("-", False):
            ranges.append((character, characters[at + 2][0]))
            at += 3
        else:
            ranges.append((character, character))
            at += 1
    return _Class(negated, ranges)


def _unescaped(body: str) -> Iterator[tuple[str, bool]]:
    """Characters, and whether a backslash stood before them."""
    at = 0
    while at < len(body):
        escaped = body[at] == "\\" and at + 1 < len(body)
        at += escaped
        yield body[at], escaped
        at += 1


def _match_path(pattern: Sequence[_Name], parts: Sequence[str]) -> bool:
    """Follows all positions in the pattern at once, so no backtracking."""
    at = _skip_stars(pattern, {0})
    for part in parts:
        after: set[int] = set()
        for index in at:
            if index < len(pattern):
                name = pattern[index]
                if name is None:
                    after.add(index)
                elif _match_name(name, part):
                    after.add(index + 1)
        at = _skip_stars(pattern, after)
        if not at:
            return False
    return len(pattern) in at


def _skip_stars(pattern: Sequence[_Name], at: Iterable[int]) -> set[int]:
    """`at` and the positions behind a `**` that matches nothing."""
    reached = set(at)
    for index in sorted(reached):
        while index < len(pattern) and pattern[index] is None:
            index += 1  # noqa: PLW2901 — walks on from each start
            reached.add(index)
    return reached


def _match_name(tokens: Sequence[_Piece], name: str) -> bool:
    """Wildcard matching that only ever goes back to the last `*`."""
    token = character = 0
    star, restart = -1, 0
    while character < len(name):
        if token < len(tokens) and tokens[token] is _STAR:
            star, restart = token, character
            token += 1
        elif token < len(tokens) and _match_character(tokens[token], name[character]):
            token += 1
            character += 1
        elif star >= 0:
            restart += 1
            token, character = star + 1, restart
        else:
            return False
    return all(rest is _STAR for rest in tokens[token:])


def _match_character(token: _Piece, character: str) -> bool:
    if isinstance(token, str):
        return token == character
    return token.matches(character) if isinstance(token, _Class) else token is _ANY


@dataclass(frozen=True)
class _Rule:
    components: Sequence[_Name]
    negated: bool
    only_directories: bool


class Ignore:
    """The rules of the `.gitignore` file of one directory."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._rules = [rule for line in lines if (rule := _rule(line)) is not None]

    def decides(self, path: str, *, is_dir: bool) -> bool | None:
        """Whether these rules ignore `path` (relative to their directory); `None` when none of them is about it.

        Only about the path itself: what lies below an ignored directory is ignored, whatever rules say about it.
        """
        parts = path.split("/")
        for rule in reversed(self._rules):
            if (is_dir or not rule.only_directories) and _match_path(rule.components, parts):
                return not rule.negated
        return None

    def ignores(self, path: str, *, is_dir: bool) -> bool:
        """Whether `path` or a directory above it is ignored."""
        parts = path.split("/")
        above = ("/".join(parts[:depth]) for depth in range(1, len(parts)))
        return any(self.decides(directory, is_dir=True) for directory in above) or bool(
            self.decides(path, is_dir=is_dir)
        )


def _rule(line: str) -> _Rule | None:
    line = _without_trailing_spaces(line.removesuffix("\r"))
    if not line or line.startswith("#"):
        return None
    negated = line.startswith("!")
    pattern = line[1:] if negated else line
    only_directories = pattern.endswith("/")
    pattern = pattern.rstrip("/") if only_directories else pattern
    if not pattern:
        return None
    anchored = "/" in pattern
    components = _components(pattern.removeprefix("/"), strict=False)
    if components[-1] is None and len(components) > 1:
        components.append([_STAR])  # "a/**" is what is in a, not a itself
    return _Rule(components if anchored else [None, *components], negated, only_directories)


def _without_trailing_spaces(line: str) -> str:
    stripped = line.rstrip(" ")
    backslashes = len(stripped) - len(stripped.rstrip("\\"))
    # "\ " at the end is a space that stays.
    return stripped + " " if backslashes % 2 and stripped != line else stripped
