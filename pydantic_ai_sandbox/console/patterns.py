r"""Glob patterns and `.gitignore` rules, matched without regular expressions.

The semantics are those of the runner (PROTOCOL.md, "Search"), and the same vectors test both: `*` and `?` do not cross
`/`, `**` does, `[…]`, `{a,b}` (nested too), `\` escapes, a pattern without `/` matches the name at any depth, what makes
no sense (`[` without `]`) stands for itself. A pattern becomes a machine whose states advance together, so a match costs
at most (length of the pattern) times (length of the path): `*a*a*a*b` cannot hang anything, which a translation to `re`
could not promise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

__all__ = ("Glob", "Ignore", "split_root")

_LONGEST = 1_000
"""Characters of a glob pattern."""
_LONGEST_RULE = 1_000
_MOST_RULES = 4_096
_DEEPEST = 50
"""Braces in braces."""
_REMEMBERED = 200_000
"""States and transitions that a machine remembers, in all."""


class _Jump(tuple[int, ...]):
    """Go on at each of these places, without taking a character."""

    __slots__ = ()


_Takes: TypeAlias = Callable[[str], bool]
_Instruction: TypeAlias = _Takes | _Jump | None
"""Take a character and go on, go on elsewhere, or accept."""
_States: TypeAlias = frozenset[int]

_NOT_SLASH: _Takes = "/".__ne__
_NAMED_CLASSES = {
    "alnum": ("09", "AZ", "az"),
    "alpha": ("AZ", "az"),
    "blank": ("\t\t", "  "),
    "cntrl": ("\x00\x1f", "\x7f\x7f"),
    "digit": ("09",),
    "graph": ("!~",),
    "lower": ("az",),
    "print": (" ~",),
    "punct": ("!/", ":@", "[`", "{~"),
    "space": ("\t\r", "  "),
    "upper": ("AZ",),
    "xdigit": ("09", "AF", "af"),
}


def _anything(_: str) -> bool:
    return True


class Glob:
    """A glob pattern.

    Raises:
        ValueError: The pattern is empty, too long, or its braces are nested too deeply.
    """

    def __init__(self, pattern: str) -> None:
        if not pattern:
            raise ValueError("the pattern is empty")
        if len(pattern) > _LONGEST:
            raise ValueError(f"the pattern is longer than {_LONGEST:,} characters")
        while pattern.startswith("./"):
            pattern = pattern[2:]
        self._by_name = "/" not in pattern
        pattern = pattern.lstrip("/")
        if not pattern or pattern.endswith("/"):
            pattern += "**"  # a directory: what is in it
        self._machine = _Machine(_Compiler(pattern, braces=True).compile())

    def matches(self, path: str) -> bool:
        """Whether `path` matches; it is relative and has no `/` at either end."""
        return self._machine.accepts(path.rpartition("/")[2] if self._by_name else path)


def split_root(pattern: str) -> tuple[str, str]:
    """An absolute pattern as the directory it starts in and the rest: `/a/b/*/x.py` is `/a/b` and `/*/x.py`."""
    parts = pattern.split("/")
    fixed = 1
    while fixed < len(parts) - 1 and not set(parts[fixed]) & set("*?[{\\"):
        fixed += 1
    # The slash in front keeps a rest without another one from matching at any depth.
    return "/".join(parts[:fixed]) or "/", "/" + "/".join(parts[fixed:])


class Ignore:
    """The rules of the `.gitignore` file of one directory."""

    def __init__(self, lines: Iterable[str]) -> None:
        rules = (rule for line in lines if (rule := _Rule.parse(line)) is not None)
        self._rules = [rule for _, rule in zip(range(_MOST_RULES), rules, strict=False)]

    def decides(self, path: str, *, is_dir: bool) -> bool | None:
        """Whether these rules ignore `path` (relative to their directory); `None` when none of them is about it.

        Only about the path itself: what lies in an ignored directory is ignored, whatever rules say about it.
        """
        name = path.rpartition("/")[2]
        for rule in reversed(self._rules):
            if rule.matches(path, name, is_dir=is_dir):
                return not rule.negated
        return None


class _Rule:
    """One line of a `.gitignore` file."""

    def __init__(
        self, pattern: str, machine: _Machine | None, *, negated: bool, only_dirs: bool, by_name: bool
    ) -> None:
        self.negated = negated
        self._literal = pattern
        self._machine = machine
        self._only_dirs = only_dirs
        self._by_name = by_name

    @classmethod
    def parse(cls, line: str) -> _Rule | None:
        """The rule, `None` for a line that is none."""
        line = _without_trailing_spaces(line.removesuffix("\r"))
        if not line or line.startswith("#") or len(line) > _LONGEST_RULE:
            return None
        negated = line.startswith("!")
        pattern = line[1:] if negated else line
        only_dirs = pattern.endswith("/")
        pattern = pattern.removesuffix("/")
        by_name = "/" not in pattern
        pattern = pattern.removeprefix("/")
        if not pattern:
            return None
        compiler = _Compiler(pattern, braces=False)
        # Most rules are plain names, and every name in a tree is held against every rule.
        machine = _Machine(compiler.compile()) if set(pattern) & set("*?[\\") else None
        if compiler.is_broken:
            return None
        return cls(pattern, machine, negated=negated, only_dirs=only_dirs, by_name=by_name)

    def matches(self, path: str, name: str, *, is_dir: bool) -> bool:
        if self._only_dirs and not is_dir:
            return False
        subject = name if self._by_name else path
        return subject == self._literal if self._machine is None else self._machine.accepts(subject)


def _without_trailing_spaces(line: str) -> str:
    stripped = line.rstrip(" ")
    backslashes = len(stripped) - len(stripped.rstrip("\\"))
    # "\ " at the end is a space that stays.
    return stripped + " " if backslashes % 2 and stripped != line else stripped


class _Machine:
    """Runs a program over a text, remembering where each set of states leads to."""

    def __init__(self, program: Sequence[_Instruction]) -> None:
        self._program = program
        self._steps: dict[tuple[_States, str], _States] = {}
        self._first = self._reach([0])

    def accepts(self, text: str) -> bool:
        states = self._first
        for character in text:
            after = self._steps.get((states, character))
            states = self._step(states, character) if after is None else after
            if not states:
                return False
        return len(self._program) - 1 in states

    def _step(self, states: _States, character: str) -> _States:
        taken = [at + 1 for at in states if callable(takes := self._program[at]) and takes(character)]
        after = self._reach(taken)
        if len(self._steps) * len(self._program) > _REMEMBERED:
            self._steps.clear()
        self._steps[states, character] = after
        return after

    def _reach(self, places: Iterable[int]) -> _States:
        """The places, and those they lead to without taking a character."""
        reached: set[int] = set()
        waiting = list(places)
        while waiting:
            at = waiting.pop()
            if at not in reached:
                reached.add(at)
                instruction = self._program[at]
                if isinstance(instruction, _Jump):
                    waiting.extend(instruction)
        return frozenset(reached)


class _Compiler:
    """Turns a pattern into a program, whose last instruction accepts."""

    def __init__(self, source: str, *, braces: bool) -> None:
        self._source = source
        self._braces = braces
        self._at = 0
        self._program: list[_Instruction] = []
        self.is_broken = False
        """Whether something was opened or escaped and never finished."""

    def compile(self) -> Sequence[_Instruction]:
        self._sequence(0, at_start=True)
        self._program.append(None)
        return self._program

    def _sequence(self, depth: int, *, at_start: bool) -> None:
        """Compile to the end or, in braces, to `,` or `}`; `at_start` tells whether a name starts here."""
        while self._at < len(self._source):
            character = self._source[self._at]
            if depth and character in ",}":
                return
            if character == "*":
                self._stars(depth, at_start=at_start)
            elif character == "{" and self._braces and self._closes():
                self._group(depth, at_start=at_start)
            else:
                self._program.append(self._one(character))
            at_start = self._source[self._at - 1] == "/"

    def _one(self, character: str) -> _Takes:
        """What takes one character."""
        self._at += 1
        if character == "?":
            return _NOT_SLASH
        if character == "[":
            found = _parse_class(self._source, self._at)
            self.is_broken = self.is_broken or found is None
            if found is not None:
                takes, self._at = found
                return takes
        elif character == "\\":
            if self._at < len(self._source):
                character = self._source[self._at]
                self._at += 1
            else:
                self.is_broken = True
        return character.__eq__

    def _stars(self, depth: int, *, at_start: bool) -> None:
        run = self._at
        while self._source[self._at : self._at + 1] == "*":
            self._at += 1
        following = self._source[self._at : self._at + 1]
        at_end = not following or (depth > 0 and following in ",}")
        is_whole = at_start and (at_end or following == "/")
        # In .gitignore "**" is special only as a whole name.
        if self._at - run == 1 or not (self._braces or is_whole):
            self._repeat(_NOT_SLASH)
        elif is_whole and not at_end:
            # "**/": any number of directories, also none.
            self._at += 1
            start = self._jump()
            self._repeat(_anything)
            self._program.append("/".__eq__)
            self._program[start] = _Jump((start + 1, len(self._program)))
        else:
            if is_whole:
                # "dir/**": everything in it, but not the directory itself.
                self._program.append(_anything)
            self._repeat(_anything)

    def _jump(self) -> int:
        self._program.append(_Jump())
        return len(self._program) - 1

    def _repeat(self, takes: _Takes) -> None:
        start = self._jump()
        self._program += [takes, _Jump((start,))]
        self._program[start] = _Jump((start + 1, len(self._program)))

    def _group(self, depth: int, *, at_start: bool) -> None:
        if depth >= _DEEPEST:
            raise ValueError("the braces of the pattern are nested too deeply")
        fork = self._jump()
        options: list[int] = []
        ends: list[int] = []
        while self._source[self._at] != "}" or not options:
            self._at += 1
            options.append(len(self._program))
            self._sequence(depth + 1, at_start=at_start)
            ends.append(self._jump())
        self._at += 1
        self._program[fork] = _Jump(options)
        for end in ends:
            self._program[end] = _Jump((len(self._program),))

    def _closes(self) -> bool:
        """Whether the brace here has a partner."""
        depth, at = 0, self._at
        while at < len(self._source):
            character = self._source[at]
            at += 1
            if character == "\\":
                at += 1
            elif character == "[" and (found := _parse_class(self._source, at)) is not None:
                at = found[1]
            elif character in "{}":
                depth += 1 if character == "{" else -1
                if not depth:
                    return True
        return False


def _parse_class(source: str, at: int) -> tuple[_Takes, int] | None:
    """The class whose `[` is right before `at`, and where it ends; `None` if it does not."""
    negated = source[at : at + 1] in {"!", "^"}
    at += negated
    spans: list[tuple[str, str]] = []
    first = True
    while at < len(source) and (source[at] != "]" or first):
        first = False
        named = source[at + 2 : source.find(":]", at + 2)] if source.startswith("[:", at) else ""
        if named in _NAMED_CLASSES:
            spans += [(span[0], span[1]) for span in _NAMED_CLASSES[named]]
            at += len(named) + 4
            continue
        low, at = _class_character(source, at)
        high = low
        if source[at : at + 1] == "-" and source[at + 1 : at + 2] not in {"", "]"}:
            high, at = _class_character(source, at + 1)
        spans.append((low, high))
    if at >= len(source):
        return None

    def takes(character: str) -> bool:
        return character != "/" and negated != any(low <= character <= high for low, high in spans)

    return takes, at + 1


def _class_character(source: str, at: int) -> tuple[str, int]:
    if source[at] == "\\" and at + 1 < len(source):
        at += 1
    return source[at], at + 1
