"""The console on a workspace that has none of our abilities."""

from .contract import CommandContract, EditContract, FindContract, JobContract, ReadContract, WriteContract
from .known_bugs import KnownBugContract
from .over_http import OverHTTPContract


class TestCommands(CommandContract): ...


class TestRead(ReadContract): ...


class TestWrite(WriteContract): ...


class TestEdit(EditContract): ...


class TestFind(FindContract): ...


class TestJobs(JobContract): ...


class TestKnownBugs(KnownBugContract): ...


class TestOverHTTP(OverHTTPContract): ...
